"""One channel of one session: audio in, utterances out."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from dev.gladia.ear import HeardWord, Listener
from dev.gladia.endpointing import Boundary, Endpointer
from dev.gladia.messages import Utterance
from dev.gladia.pcm import SAMPLE_RATE, Pcm

_SLICE_SAMPLES = SAMPLE_RATE // 10
"""A burst is heard in slices, or the interims of one utterance would show words of the next."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    channel: int
    at_s: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    channel: int
    at_s: float


@dataclass(frozen=True, slots=True)
class InterimHeard:
    utterance: Utterance


@dataclass(frozen=True, slots=True)
class FinalHeard:
    utterance: Utterance


Happening = SpeechStarted | SpeechEnded | InterimHeard | FinalHeard


class Transcriber:
    """Feeds the ear, asks it at the boundaries, numbers the utterances."""

    def __init__(
        self,
        *,
        channel: int,
        language: str,
        listener: Listener,
        endpointer: Endpointer,
        next_id: Callable[[int], str],
    ) -> None:
        self._channel = channel
        self._listener = listener
        self._endpointer = endpointer
        self._next_id = next_id
        self._blank = Utterance(
            id="", channel=channel, language=language, start_s=0, end_s=0, words=()
        )
        self._open: Utterance | None = None
        self._samples = 0

    async def hear(self, pcm: Pcm) -> AsyncIterator[Happening]:
        """What the next samples bring, in order."""
        for start in range(0, len(pcm), _SLICE_SAMPLES):
            piece = pcm[start : start + _SLICE_SAMPLES]
            self._samples += len(piece)
            self._listener.feed(piece)
            for boundary in self._endpointer.feed(piece):
                async for happening in self._cross(boundary):
                    yield happening
            interim = await self._interim()
            if interim:
                yield interim

    async def finish(self) -> AsyncIterator[Happening]:
        """What is left once no more audio comes."""
        for boundary in self._endpointer.finish():
            async for happening in self._cross(boundary):
                yield happening

    async def forget(self) -> None:
        """Loses the utterance that is open."""
        for boundary in self._endpointer.finish():
            await self._listener.end(boundary.known_at)
        self._open = None

    async def aclose(self) -> None:
        await self._listener.aclose()

    async def _cross(self, boundary: Boundary) -> AsyncIterator[Happening]:
        at_s = boundary.position / SAMPLE_RATE
        if boundary.kind == "begin":
            self._listener.begin(boundary.position)
            self._open = replace(self._blank, id=self._next_id(self._channel), start_s=at_s)
            yield SpeechStarted(self._channel, at_s)
            return
        interim = await self._interim()
        if interim:
            yield interim
        utterance, self._open = self._open, None
        words = tuple(await self._listener.end(boundary.known_at))
        yield SpeechEnded(self._channel, at_s)
        if utterance:
            yield FinalHeard(_filled(utterance, words, at_s))

    async def _interim(self) -> InterimHeard | None:
        """The open utterance, if it has grown."""
        if self._open is None:
            return None
        words = tuple(await self._listener.interim())
        if not words or words == self._open.words:
            return None
        self._open = _filled(self._open, words, self._samples / SAMPLE_RATE)
        return InterimHeard(self._open)


def _filled(utterance: Utterance, words: tuple[HeardWord, ...], end_s: float) -> Utterance:
    starts = [word.start_s for word in words[:1]]
    ends = [word.end_s for word in words[-1:]]
    return replace(
        utterance,
        words=words,
        start_s=min([utterance.start_s, *starts]),
        end_s=max(ends, default=end_s),
    )
