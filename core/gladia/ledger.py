"""What one session was sent, what it acknowledged, and what to send it after a drop.

Gladia says which bytes it acknowledges, but not whether audio that it had received and not
acknowledged survives a drop, nor whether its count restarts with the connection. So after a drop
it is open what the server holds until the first acknowledgement of the new connection tells:
`resume_point` reads it from there, `resume_at` draws the consequences.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.audio import SAMPLE_RATE
from core.gladia.messages import AudioAck
from core.gladia.replay import Chunk
from core.gladia.timeline import Timeline

_SNAP_SAMPLES = SAMPLE_RATE // 50
"""Times are rounded to milliseconds; a chunk boundary this near is meant."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One chunk as the server counts it."""

    seq: int
    position: int | None
    """Source position, None for zeros."""
    start: int
    samples: int
    sent_at: float

    @property
    def end(self) -> int:
        return self.start + self.samples


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What the server held when a connection began."""

    held: int
    """Server samples."""
    is_certain: bool
    """False where its count cannot tell kept audio from discarded audio."""


class Ledger:
    """Sent and acknowledged audio of one session, in server samples."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.acked = 0
        """Server samples acknowledged, session-relative."""
        self.in_flight: deque[Sent] = deque()
        self.in_flight_samples = 0
        self.resend: deque[int] = deque()
        """Chunks that must go out before any new one."""
        self._base = 0
        """What the server's count of this connection starts from."""
        self._reserve: deque[Sent] = deque()
        self._unacked: list[Sent] = []
        self._is_known = True
        """Whether we know what the server holds."""
        self._is_muddled = False

    @property
    def is_probing(self) -> bool:
        return not self._is_known

    @property
    def is_settled(self) -> bool:
        """Nothing is in flight and nothing waits for a verdict."""
        return not self.in_flight and not self._unacked and not self.resend

    @property
    def acknowledged_position(self) -> int | None:
        """Where the acknowledged audio ends on the time line; None before any was."""
        return self.timeline.end_position(self.acked) if self.acked else None

    def oldest_unsettled(self, next_seq: int) -> int:
        """The first chunk that may have to be sent again, or for the first time."""
        seqs = [next_seq, *self.resend, *(sent.seq for sent in self._unacked)]
        if self.in_flight:
            seqs.append(min(sent.seq for sent in self.in_flight))
        return min(seqs)

    def sent(self, chunk: Chunk, now: float) -> None:
        """The chunk was put on the wire."""
        position = None if chunk.is_silence else chunk.position
        start = self.timeline.total
        self.in_flight.append(Sent(chunk.seq, position, start, chunk.samples, now))
        self.in_flight_samples += chunk.samples
        if self._is_known:
            self.timeline.append(position, chunk.samples)

    def acknowledge(self, ack: AudioAck) -> tuple[int, bool]:
        """Applies an accepting ack: samples newly acknowledged, and whether it was believable.

        Acknowledgements count as cumulative, so lost, merged, doubled and reordered ones are
        harmless. One without a range confirms the oldest chunk.
        """
        if ack.end is None:
            end = self.in_flight[0].end if self.in_flight else self.acked
        else:
            end = ack.end + self._base
        newly = 0
        while self.in_flight and self.in_flight[0].end <= end:
            sent = self.in_flight.popleft()
            newly += sent.samples
            self._reserve.append(sent)
        self.in_flight_samples -= newly
        self.acked = max(self.acked, min(end, self.timeline.total))
        return newly, end <= self.timeline.total

    def acknowledge_all(self) -> int:
        """The server ended the session in good order: it had everything. Samples newly so."""
        newly = self.in_flight_samples
        self._reserve.extend(self.in_flight)
        self.in_flight.clear()
        self.in_flight_samples = 0
        self.acked = self.timeline.total
        return newly

    def reject_oldest(self) -> int | None:
        """The server refused the oldest chunk: it holds the later ones without it.

        Returns:
            The chunk, which is queued to be sent again; None where nothing was in flight.
        """
        if not self.in_flight:
            return None
        refused, *later = self.in_flight
        self.timeline.truncate(refused.start)
        self.in_flight.clear()
        for sent in later:
            self.in_flight.append(replace(sent, start=self.timeline.total))
            self.timeline.append(sent.position, sent.samples)
        self.in_flight_samples -= refused.samples
        self.resend.append(refused.seq)
        return refused.seq

    def connection_lost(self) -> None:
        """From here on it is open what the server holds of the unacknowledged."""
        if self._is_known:
            self._unacked = list(self.in_flight)
        else:
            # Two drops without an acknowledgement between them: what the server holds may be the
            # first connection's audio or the second one's repetition of it.
            self._is_muddled = self._is_muddled or bool(self.in_flight)
            for sent in self.in_flight:
                self._unacked.append(replace(sent, start=self.timeline.total))
                self.timeline.append(sent.position, sent.samples)
        self.resend = _distinct([*(sent.seq for sent in self._unacked), *self.resend])
        self.in_flight.clear()
        self.in_flight_samples = 0
        self._is_known = self.timeline.total == 0

    def resume_point(self, ack: AudioAck) -> ResumePoint:
        """What the server held before this connection, by the connection's first ack."""
        if ack.start is None or ack.end is None:
            return ResumePoint(self.acked, is_certain=not self._unacked)
        start = ack.start
        if ack.end - ack.start > self.in_flight_samples:
            start = max(ack.end - self.in_flight_samples, 0)
        if start > 0:
            is_certain = start <= self.acked or not self._is_muddled
            return ResumePoint(start, is_certain)
        by_time = round((ack.start_time_s or 0.0) * SAMPLE_RATE)
        if by_time > _SNAP_SAMPLES:
            held = self._snap(by_time)
            is_certain = held <= self.acked or not self._is_muddled
            return ResumePoint(held, is_certain)
        untold = ack.start_time_s is None and not self._unacked
        return ResumePoint(self.acked, is_certain=untold)

    def resume_at(self, point: ResumePoint, ack: AudioAck) -> list[tuple[int, int]]:
        """The server held so much before it got what is in flight now.

        Sends again what it lacks, and accepts as received what it kept; where that is not
        certain, all that was not acknowledged is sent again, as Gladia's own SDKs do.

        Returns:
            Source ranges that the server had acknowledged, lost again, and cannot get any more.
        """
        held, probes = point.held, list(self.in_flight)
        believed = held if point.is_certain else min(held, self.acked)
        history = [*self._reserve, *self._unacked]
        kept = [sent for sent in history if sent.end <= believed]
        oldest = history[0].start if history else self.acked
        lost = self.timeline.spans(held, min(oldest, self.acked)) if held < oldest else []
        self.timeline.truncate(held)
        self._base = 0 if (ack.start or 0) > 0 else held
        self._reserve = deque(kept)
        self.acked = held
        self.in_flight.clear()
        for probe in probes:
            self.in_flight.append(replace(probe, start=self.timeline.total))
            self.timeline.append(probe.position, probe.samples)
        self._queue_again(history, kept, probes)
        self._unacked = []
        self._is_known, self._is_muddled = True, False
        return lost

    def forget(self, before_seq: int) -> None:
        """Chunks before this one are not in the replay buffer any more."""
        while self._reserve and self._reserve[0].seq < before_seq:
            self._reserve.popleft()

    def _queue_again(self, history: list[Sent], kept: list[Sent], probes: list[Sent]) -> None:
        have = {sent.seq for sent in kept}
        missing = [seq for seq in _distinct(s.seq for s in history) if seq not in have]
        probed = [probe.seq for probe in probes]
        common = min(len(missing), len(probed))
        if missing[:common] == probed[:common]:
            missing = missing[common:]
        self.resend = _distinct([*missing, *(seq for seq in self.resend if seq not in have)])

    def _snap(self, server_sample: int) -> int:
        ends = [sent.end for sent in (*self._reserve, *self._unacked)] + [self.acked]
        nearest = min(ends, key=lambda end: abs(end - server_sample))
        return nearest if abs(nearest - server_sample) <= _SNAP_SAMPLES else server_sample


def _distinct(seqs: Iterable[int]) -> deque[int]:
    return deque(dict.fromkeys(seqs))
