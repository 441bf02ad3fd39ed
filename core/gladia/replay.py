"""Audio that may have to be sent, or sent again: bounded, and what falls out is said.

Chunks are numbered by `seq` in the order they were given. Memory holds `cap_samples`; beyond that
the newest chunks go to a spill, where there is one. What has no room anywhere pushes out the
oldest, and `append` returns that.
"""

from dataclasses import dataclass
from typing import Protocol

from core.audio import SAMPLE_BYTES, peak, samples_in

_INAUDIBLE = 100
"""Amplitude, -50 dBFS: a whisper is louder."""


class Spill(Protocol):
    """Bytes outside of memory, freed in the order they were written."""

    def write(self, pcm: bytes) -> int | None:
        """A token for `read`, or None where there is no room."""

    def read(self, token: int, size: int) -> bytes | None:
        """What was written, or None if it cannot be read any more."""

    def free(self, token: int, size: int) -> None:
        """The bytes are not needed again."""


@dataclass(slots=True)
class Chunk:
    """About 100 ms of audio, or of inserted zeros."""

    seq: int
    position: int
    """Source position of its first sample; zeros stand where the audio before them ended."""
    samples: int
    is_silence: bool
    pcm: bytes | None
    """None while it lives in the spill."""
    token: int = 0

    @property
    def end_position(self) -> int:
        return self.position if self.is_silence else self.position + self.samples


class ReplayBuffer:
    """A bounded run of chunks, oldest first."""

    def __init__(self, cap_samples: int, spill: Spill | None = None) -> None:
        self.first_seq = 0
        """The oldest chunk that is still here."""
        self.end_seq = 0
        """One past the newest chunk."""
        self._cap_samples = cap_samples
        self._in_memory = 0
        self._spill = spill
        self._chunks: dict[int, Chunk] = {}

    def append(self, position: int, pcm: bytes, *, is_silence: bool = False) -> list[Chunk]:
        """Takes ownership of `pcm`; returns the chunks that had to give way."""
        chunk = Chunk(self.end_seq, position, samples_in(pcm), is_silence, pcm)
        pushed_out: list[Chunk] = []
        if self._in_memory + chunk.samples > self._cap_samples:
            pushed_out = self._make_room(chunk, pcm)
        if chunk.pcm is not None:
            self._in_memory += chunk.samples
        self._chunks[chunk.seq] = chunk
        self.end_seq += 1
        return pushed_out

    def get(self, seq: int) -> Chunk | None:
        return self._chunks.get(seq)

    def pcm(self, chunk: Chunk) -> bytes | None:
        """Its bytes, from the spill if need be; None where the spill failed."""
        if chunk.pcm is not None or self._spill is None:
            return chunk.pcm
        return self._spill.read(chunk.token, chunk.samples * 2)

    def release(self, before_position: int, before_seq: int) -> None:
        """Forgets chunks that end by `before_position` and come before `before_seq`."""
        while self.first_seq < before_seq:
            if self._chunks[self.first_seq].end_position > before_position:
                return
            self._drop_first()

    def seq_at(self, position: int) -> int:
        """The first chunk that reaches beyond `position`."""
        for seq in range(self.first_seq, self.end_seq):
            if self._chunks[seq].end_position > position:
                return seq
        return self.end_seq

    def is_audible(self, start: int, end: int) -> bool:
        """Whether there was any sound, as far as it can be heard here."""
        first = self.get(self.seq_at(start))
        if first is None or (first.position > start and first.seq == self.first_seq):
            return True
        for seq in range(first.seq, min(self.seq_at(end - 1) + 1, self.end_seq)):
            chunk = self._chunks[seq]
            pcm, begin = self.pcm(chunk), max(start - chunk.position, 0)
            if pcm is None:
                return True
            if peak(pcm[begin * SAMPLE_BYTES : (end - chunk.position) * SAMPLE_BYTES]) > _INAUDIBLE:
                return True
        return False

    def pending(self, from_seq: int) -> bool:
        """Whether there is anything from this chunk on."""
        return max(from_seq, self.first_seq) < self.end_seq

    def _make_room(self, chunk: Chunk, pcm: bytes) -> list[Chunk]:
        if self._spill is not None and (token := self._spill.write(pcm)) is not None:
            chunk.pcm, chunk.token = None, token
            return []
        pushed_out = []
        while self._in_memory + chunk.samples > self._cap_samples and self._chunks:
            pushed_out.append(self._drop_first())
        return pushed_out

    def _drop_first(self) -> Chunk:
        chunk = self._chunks.pop(self.first_seq)
        self.first_seq += 1
        if chunk.pcm is not None:
            self._in_memory -= chunk.samples
        elif self._spill is not None:
            self._spill.free(chunk.token, chunk.samples * 2)
        return chunk
