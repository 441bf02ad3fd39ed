"""What one session was sent, what it acknowledged, and what to send it after a drop.

Gladia says which bytes it acknowledges, but not whether audio that it had received and not
acknowledged survives a drop, nor whether its count restarts with the connection. So after a drop
it is open what the server holds. Two milliseconds of zeros, too short to be heard, are sent as a
probe; the range of their acknowledgement tells. `resume_point` reads it from there, `resume_at`
draws the consequences.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.audio import SAMPLE_RATE
from core.gladia.messages import AudioAck
from core.gladia.replay import Chunk
from core.gladia.timeline import Timeline

PROBE_SAMPLES = 32
_NO_CHUNK = -1
_TOLERANCE = SAMPLE_RATE // 1000
"""Times are rounded to milliseconds."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One chunk as the server counts it."""

    seq: int
    """The chunk, or -1 for a probe."""
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
    """Server samples of what we had sent before."""
    total: int
    """Server samples in all: `held`, and probes that came over lost connections."""
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
        self._strays = 0
        """Samples of probes on connections that were lost before any acknowledgement."""

    @property
    def is_probing(self) -> bool:
        return not self._is_known

    @property
    def is_settled(self) -> bool:
        """No chunk is in flight or waits for a verdict; probes do not matter."""
        return not self.resend and not _chunks([*self._unacked, *self.in_flight])

    @property
    def acknowledged_position(self) -> int | None:
        """Where the acknowledged audio ends on the time line; None before any was."""
        return self.timeline.end_position(self.acked) if self.acked else None

    @property
    def sent_position(self) -> int | None:
        """Where the audio ends that the server may hold; None before any was sent."""
        return self.timeline.end_position(self.timeline.total)

    def oldest_unsettled(self, next_seq: int) -> int:
        """The first chunk that may have to be sent again, or for the first time."""
        unsettled = [*self._unacked, *self.in_flight]
        seqs = [sent.seq for sent in unsettled if sent.seq != _NO_CHUNK]
        return min([next_seq, *self.resend, *seqs])

    def sent(self, chunk: Chunk, now: float) -> None:
        """The chunk was put on the wire."""
        position = None if chunk.is_silence else chunk.position
        self._put(Sent(chunk.seq, position, self.timeline.total, chunk.samples, now))

    def sent_zeros(self, count: int, now: float) -> None:
        """Zeros of no chunk were put on the wire."""
        self._put(Sent(_NO_CHUNK, None, self.timeline.total, count, now))

    def _put(self, sent: Sent) -> None:
        self.in_flight.append(sent)
        self.in_flight_samples += sent.samples
        if self._is_known:
            self.timeline.append(sent.position, sent.samples)

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
        if refused.seq != _NO_CHUNK:
            self.resend.append(refused.seq)
        return refused.seq

    def connection_lost(self) -> None:
        """From here on it is open what the server holds of the unacknowledged."""
        if self._is_known:
            self._unacked = list(self.in_flight)
        else:
            self._strays += self.in_flight_samples
        self.resend = _distinct([*_chunks(self._unacked), *self.resend])
        self.in_flight.clear()
        self.in_flight_samples = 0
        self._is_known = self.timeline.total == 0

    def resume_point(self, ack: AudioAck) -> ResumePoint:
        """What the server held before this connection, by the connection's first ack."""
        if ack.start is None or ack.end is None:
            return self._point(None)
        start = ack.start
        if ack.end - ack.start > self.in_flight_samples:
            start = max(ack.end - self.in_flight_samples, 0)
        if start == 0 and ack.start_time_s is not None:
            start = round(ack.start_time_s * SAMPLE_RATE)
        return self._point(start or None)

    def _point(self, total: int | None) -> ResumePoint:
        """Splits the server's count into what it kept of ours and probes of lost connections."""
        if total is None:
            # Counted from 0: a server that counts by connection, or one without any audio.
            return ResumePoint(self.acked, self.acked, is_certain=not self._unacked)
        if total <= self.acked + _TOLERANCE:
            held = self.acked if total > self.acked - _TOLERANCE else total
            return ResumePoint(held, held, is_certain=True)
        held = self.acked
        for sent in self._unacked:
            if sent.end <= total + _TOLERANCE:
                held = sent.end
        is_certain = total - held <= self._strays + _TOLERANCE
        return ResumePoint(held, max(total, held), is_certain)

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
        self.timeline.append(None, point.total - held)
        self._base = 0 if (ack.start or 0) > 0 else point.total
        self._reserve = deque(kept)
        self.acked = point.total
        self.in_flight.clear()
        for probe in probes:
            self.in_flight.append(replace(probe, start=self.timeline.total))
            self.timeline.append(None, probe.samples)
        missing = _chunks(sent for sent in history if sent.end > believed)
        waiting = [seq for seq in self.resend if seq not in set(_chunks(kept))]
        self.resend = _distinct([*missing, *waiting])
        self._unacked = []
        self._is_known, self._strays = True, 0
        return lost

    def forget(self, before_seq: int) -> None:
        """Chunks before this one are not in the replay buffer any more."""
        while self._reserve and self._reserve[0].seq < before_seq:  # a probe, too
            self._reserve.popleft()


def _chunks(sent: Iterable[Sent]) -> list[int]:
    return [item.seq for item in sent if item.seq != _NO_CHUNK]


def _distinct(seqs: Iterable[int]) -> deque[int]:
    return deque(dict.fromkeys(seqs))
