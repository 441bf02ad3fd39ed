"""What hears: the two small protocols, and the ear that reads watermarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dev import watermark
from dev.gladia.pcm import SAMPLE_RATE, Pcm


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word and when it sounded, in seconds of this listener's audio."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 1.0


class Listener(Protocol):
    """Hears one channel of one session. Positions are 16 kHz samples since its first sample."""

    def feed(self, pcm: Pcm) -> None:
        """Takes the next samples, speech or not."""

    def begin(self, position: int) -> None:
        """An utterance began at `position`, which was fed already."""

    async def interim(self) -> Sequence[HeardWord]:
        """The words of the open utterance so far."""

    async def end(self, position: int) -> Sequence[HeardWord]:
        """The utterance ended at `position`: its words. A word that still sounds stays behind."""

    async def aclose(self) -> None:
        """Nothing more will be asked."""


class Ear(Protocol):
    """Makes listeners; belongs to one stand-in."""

    name: str

    def listen(self) -> Listener: ...

    async def aclose(self) -> None: ...


class WatermarkListener:
    """Reads `dev.watermark`, at once; a word's confidence is the share of it that arrived."""

    def __init__(self) -> None:
        self._decoder = watermark.Decoder()
        self._waiting: list[HeardWord] = []

    def feed(self, pcm: Pcm) -> None:
        self._take(self._decoder.feed(pcm))

    def begin(self, position: int) -> None:
        """Words are told apart by their end alone."""

    async def interim(self) -> Sequence[HeardWord]:
        return tuple(self._waiting)

    async def end(self, position: int) -> Sequence[HeardWord]:
        self._take(self._decoder.flush())
        end_s = position / SAMPLE_RATE
        words = [word for word in self._waiting if word.end_s <= end_s]
        self._waiting = self._waiting[len(words) :]
        return words

    async def aclose(self) -> None:
        """Holds nothing."""

    def _take(self, marks: Sequence[watermark.Mark]) -> None:
        """A word whose beginning was never sent begins where the audio does."""
        self._waiting += [
            HeardWord(mark.text, max(mark.start_s, 0.0), mark.end_s, mark.clarity) for mark in marks
        ]


class WatermarkEar:
    """The scripted ear: the transcript says which samples arrived, how often, in which order."""

    name = "watermark"

    def listen(self) -> Listener:
        return WatermarkListener()

    async def aclose(self) -> None:
        """Holds nothing."""
