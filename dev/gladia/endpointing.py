"""Where utterances begin and end: energy on audio time, never on the clock."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dev.gladia.pcm import SAMPLE_RATE, Pcm

FRAME_SAMPLES = SAMPLE_RATE // 100
_ONSET_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Boundary:
    """An utterance began, ended after enough silence, or was cut for its length.

    `position` is where that is true (16 kHz samples); `known_at` is how much audio it took to say.
    """

    kind: Literal["begin", "end", "cut"]
    position: int
    known_at: int


class Endpointer:
    """Splits one channel into utterances, frame by frame of 10 ms."""

    def __init__(self, *, level: float, endpointing_s: float, max_duration_s: float) -> None:
        self._level = level
        self._silence_frames = max(1, round(endpointing_s * SAMPLE_RATE / FRAME_SAMPLES))
        self._max_frames = round(max_duration_s * SAMPLE_RATE / FRAME_SAMPLES)
        self._rest: Pcm = np.zeros(0, np.int16)
        self._frame = 0
        self._loud = 0
        self._quiet = 0
        self._began: int | None = None

    @property
    def speaking(self) -> bool:
        return self._began is not None

    def feed(self, pcm: Pcm) -> list[Boundary]:
        """Takes the next samples; boundaries come in order."""
        pcm = np.concatenate((self._rest, pcm))
        count = len(pcm) // FRAME_SAMPLES
        self._rest = pcm[count * FRAME_SAMPLES :]
        frames = pcm[: count * FRAME_SAMPLES].astype(np.float64).reshape(-1, FRAME_SAMPLES)
        boundaries: list[Boundary] = []
        for level in np.sqrt((frames**2).mean(axis=1)):
            self._frame += 1
            boundary = self._step(loud=bool(level >= self._level))
            if boundary:
                boundaries.append(boundary)
        return boundaries

    def finish(self) -> list[Boundary]:
        """No more audio: ends what is open."""
        if self._began is None:
            return []
        return [self._end("end", self._frame - self._quiet)]

    def _step(self, *, loud: bool) -> Boundary | None:
        self._loud = self._loud + 1 if loud else 0
        self._quiet = 0 if loud else self._quiet + 1
        if self._began is None:
            if self._loud >= _ONSET_FRAMES:
                self._began = self._frame - self._loud
                return Boundary("begin", self._began * FRAME_SAMPLES, self._frame * FRAME_SAMPLES)
            return None
        if self._quiet >= self._silence_frames:
            return self._end("end", self._frame - self._quiet)
        if self._frame - self._began >= self._max_frames:
            return self._end("cut", self._frame)
        return None

    def _end(self, kind: Literal["end", "cut"], frame: int) -> Boundary:
        self._began = None
        self._loud = 0
        return Boundary(kind, frame * FRAME_SAMPLES, self._frame * FRAME_SAMPLES)
