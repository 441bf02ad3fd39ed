"""Audio on its way in: checked, gathered into chunks, kept, and counted where it falls out."""

from collections.abc import Callable

from core.audio import SAMPLE_BYTES, samples, samples_in
from core.errors import LocalProtocolError
from core.gladia.events import Event
from core.gladia.gathering import Gatherer
from core.gladia.limits import Limits
from core.gladia.losses import Losses
from core.gladia.replay import ReplayBuffer, Spill

_LONGEST_ZEROS_S = 0.5
_ZEROS = bytes(samples(_LONGEST_ZEROS_S) * SAMPLE_BYTES)


class Intake:
    """Fills the replay buffer. Chunks before `safe_seq()` may fall out without being lost."""

    def __init__(
        self,
        limits: Limits,
        spill: Spill | None,
        emit: Callable[[Event], None],
        safe_seq: Callable[[], int],
    ) -> None:
        self.buffer = ReplayBuffer(samples(limits.buffer_s), spill)
        self.losses = Losses(limits.loss_report_s, emit)
        self.end_position = 0
        """Where the audio given so far ends."""
        self._gatherer = Gatherer(samples(limits.chunk_s) * SAMPLE_BYTES, limits.chunk_wait_s)
        self._safe_seq = safe_seq
        self._shed_end = 0

    def add(self, position: int, pcm: bytes, now: float) -> bool:
        """Takes a frame; whether that completed a chunk.

        Raises:
            LocalProtocolError: positions went back, or half a sample was given.
        """
        if len(pcm) % SAMPLE_BYTES:
            raise LocalProtocolError("audio must be whole samples")
        if position < self.end_position:
            raise LocalProtocolError("audio must not go back on the time line")
        self.end_position = position + samples_in(pcm)
        chunks = self._gatherer.add(position, pcm, now)
        for start, chunk in chunks:
            self._store(start, chunk, now)
        return bool(chunks)

    def add_silence(self, count: int, now: float) -> None:
        """Takes `count` zero samples that are not on the time line."""
        self.flush(now)
        while count > 0:
            step = min(count, samples(_LONGEST_ZEROS_S))
            zeros = _ZEROS[: step * SAMPLE_BYTES]
            self._store(self.end_position, zeros, now, is_silence=True)
            count -= step

    def flush(self, now: float) -> None:
        """Makes a chunk of what is there, however short."""
        for start, chunk in self._gatherer.flush():
            self._store(start, chunk, now)

    def give_up(self, from_seq: int, now: float) -> None:
        """Reports all that was not sent as lost."""
        for seq in range(max(from_seq, self.buffer.first_seq), self.buffer.end_seq):
            chunk = self.buffer.get(seq)
            if chunk is not None:
                self.losses.add(chunk.position, chunk.end_position, "gave_up", now)
        self.losses.report()

    def wanted_again(self, start: int, end: int, now: float) -> int:
        """A new session has to hear the range again; reports what of it fell out.

        Returns:
            The first chunk to send.
        """
        self.losses.add(max(start, 0), min(self._shed_end, end), "buffer_full", now)
        return self.buffer.seq_at(start)

    def deadline(self) -> float | None:
        waits = (self._gatherer.deadline(), self.losses.deadline())
        return min((due for due in waits if due is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        due = self._gatherer.deadline()
        if due is not None and now >= due:
            self.flush(now)
        self.losses.handle_deadline(now)

    def _store(self, position: int, pcm: bytes, now: float, *, is_silence: bool = False) -> None:
        for chunk in self.buffer.append(position, pcm, is_silence=is_silence):
            if chunk.seq >= self._safe_seq():
                self.losses.add(chunk.position, chunk.end_position, "buffer_full", now)
            else:
                self._shed_end = chunk.end_position
