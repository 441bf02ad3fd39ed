"""The ear that recognises real speech, with pocketsphinx in worker processes.

A recogniser is state plus about 40 MB, and takes a good part of a core while somebody speaks; so
recognition never runs in the server's process. Each listener stays with one worker, its work is
done in order, and interims are asked for at most twice a second of audio.
"""

import asyncio
import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from dev.gladia import recogniser
from dev.gladia.ear import HeardWord, Listener
from dev.gladia.pcm import SAMPLE_RATE, Pcm

_PREROLL_SAMPLES = SAMPLE_RATE // 5
_INTERIM_SAMPLES = SAMPLE_RATE // 2


class SpeechEar:
    """Worker processes that recognise English; start with the first listener's first words."""

    name = "speech"

    def __init__(self, processes: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers = [ProcessPoolExecutor(1, context) for _ in range(processes)]
        self._keys = itertools.count()

    def listen(self) -> Listener:
        key = next(self._keys)
        return SpeechListener(key, self._workers[key % len(self._workers)])

    async def aclose(self) -> None:
        """Ends the workers; what they still had to do is dropped."""
        for worker in self._workers:
            await asyncio.to_thread(worker.shutdown, wait=True, cancel_futures=True)


class SpeechListener:
    """Sends the open utterance, with a little before it, to its worker."""

    def __init__(self, key: int, worker: ProcessPoolExecutor) -> None:
        self._key = key
        self._worker = worker
        self._recent = bytearray()
        self._position = 0
        self._open_at: int | None = None
        self._sent = 0
        self._asked = 0
        self._interim: Future[list[recogniser.Word]] | None = None
        self._words: list[HeardWord] = []

    def feed(self, pcm: Pcm) -> None:
        self._recent += pcm.tobytes()
        self._position += len(pcm)
        if self._open_at is None:
            del self._recent[: -2 * (_PREROLL_SAMPLES + len(pcm))]

    def begin(self, position: int) -> None:
        held = len(self._recent) // 2
        start = max(self._position - held, position - _PREROLL_SAMPLES)
        del self._recent[: 2 * (start - (self._position - held))]
        self._open_at = self._sent = self._asked = start
        self._words = []
        self._submit(recogniser.begin, self._key)

    async def interim(self) -> Sequence[HeardWord]:
        if self._interim and self._interim.done():
            self._words = self._placed(self._interim.result())
            self._interim = None
        if self._interim is None and self._position - self._asked >= _INTERIM_SAMPLES:
            self._asked = self._position
            self._interim = self._submit(recogniser.hear, self._key, self._unsent(self._position))
        return self._words

    async def end(self, position: int) -> Sequence[HeardWord]:
        audio = self._unsent(position)
        future = self._submit(recogniser.end, self._key, audio)
        heard = await asyncio.wrap_future(future)
        words = self._placed(heard)
        self._open_at = self._interim = None
        return words

    async def aclose(self) -> None:
        self._submit(recogniser.forget, self._key)

    def _unsent(self, position: int) -> bytes:
        """The open utterance's audio from what was sent last up to `position`."""
        size = 2 * max(0, position - self._sent)
        audio = bytes(self._recent[:size])
        del self._recent[:size]
        self._sent += len(audio) // 2
        return audio

    def _placed(self, words: Sequence[recogniser.Word]) -> list[HeardWord]:
        assert self._open_at is not None
        offset_s = self._open_at / SAMPLE_RATE
        return [
            HeardWord(text, offset_s + start_s, offset_s + end_s, confidence)
            for text, start_s, end_s, confidence in words
        ]

    def _submit(
        self, work: Callable[..., list[recogniser.Word]], *arguments: int | bytes
    ) -> Future[list[recogniser.Word]]:
        return self._worker.submit(work, *arguments)
