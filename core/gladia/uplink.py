"""Audio from the replay buffer to one session: its pace, its repetition, and what came of it."""

from collections.abc import Callable

from core.audio import SAMPLE_BYTES, SAMPLE_RATE, samples
from core.gladia.commands import SendAudio
from core.gladia.events import AudioLost, PeerFault
from core.gladia.ledger import PROBE_SAMPLES, Ledger
from core.gladia.limits import Limits
from core.gladia.messages import AudioAck
from core.gladia.meter import Meter
from core.gladia.outbox import Outbox
from core.gladia.overlap import SHORTEST, Span
from core.gladia.owed import Owed
from core.gladia.replay import Chunk, ReplayBuffer

_BREAK = SAMPLE_RATE // 2
"""Samples of silence that end an utterance."""
_EDGE = SHORTEST // 4
_MOST_NUDGES = 8


class Uplink:
    """Knows what to send next to this session, over whichever connection it has."""

    def __init__(
        self, buffer: ReplayBuffer, next_seq: int, limits: Limits, meter: Meter, outbox: Outbox
    ) -> None:
        first = buffer.get(max(next_seq, buffer.first_seq))
        self.ledger = Ledger()
        self.owed = Owed(0 if first is None else first.position, limits)
        self.last_sent_at = 0.0
        self._buffer = buffer
        self._next_seq = next_seq
        self._limits = limits
        self._meter = meter
        self._outbox = outbox
        self._in_flight_limit = samples(limits.in_flight_s)
        self._nudges = 0
        self._last_ack_at = 0.0
        self._is_connected = False
        self._is_complete = False
        self._refused_chunks: set[int] = set()
        self._repeated: range | None = None

    @property
    def has_unsent(self) -> bool:
        return bool(self.ledger.resend) or self._buffer.pending(self._next_seq)

    @property
    def is_waiting(self) -> bool:
        """Audio is out that was not acknowledged."""
        return bool(self.ledger.in_flight)

    @property
    def is_caught_up(self) -> bool:
        """Everything that was given is with the server, as far as it said."""
        return not self.has_unsent and self.ledger.is_settled

    @property
    def safe_seq(self) -> int:
        """Chunks before this one need not be sent to this session again."""
        return self.ledger.oldest_unsettled(self._next_seq)

    @property
    def wanted_from(self) -> int | None:
        """Where the audio begins that another session may have to hear; None if nothing arrived."""
        acknowledged = self.ledger.acknowledged_position
        return None if acknowledged is None else self.owed.begins(acknowledged)

    def repeat(self, chunks: range) -> None:
        """Sends these before anything else, and zeros behind them, to end what was spoken there."""
        self.ledger.resend.extend(chunks)
        self._repeated = chunks
        if (first := self._buffer.get(chunks.start)) is not None:
            self.owed = Owed(first.position, self._limits)

    def connected(self, now: float) -> None:
        self.last_sent_at = self._last_ack_at = now
        self._is_connected = True
        self._nudges = 0

    def disconnected(self, now: float) -> None:
        """The connection, if there was one, is of no use any more."""
        if self._is_connected and not self._is_complete:
            acknowledged = self.ledger.acknowledged_position
            had_time = now - self._last_ack_at >= self._limits.final_grace_s
            if had_time and not self.is_waiting and acknowledged is not None:
                self.owed.silent_until(acknowledged)
            self.owed.interrupt(self.ledger.sent_position or self.owed.hears_from)
        self._is_connected = False
        self.ledger.connection_lost()

    def send(self, connection: int, now: float) -> bool:
        """Sends what may be sent now; whether that was anything."""
        if self.ledger.is_probing:
            if not self.is_waiting:
                self.probe(connection, now)
            return False
        count = 0
        while (chunk := self._next_chunk()) is not None and self._may_send(chunk):
            self._take(chunk)
            pcm = self._buffer.pcm(chunk)
            if pcm is None:
                lost = AudioLost(chunk.position, chunk.end_position, "buffer_full")
                self._outbox.events.append(lost)
                continue
            self.ledger.sent(chunk, now)
            self._outbox.commands.append(SendAudio(connection, pcm))
            self.last_sent_at = now
            if self._repeated and chunk.seq == self._repeated[-1]:
                self._send_zeros(connection, _BREAK, now)
                self._repeated = None
            count += 1
        return count > 0

    def acknowledged(self, ack: AudioAck, now: float) -> None:
        """Applies an acknowledgement of a connection whose beginning is known."""
        self._last_ack_at = now
        self._nudges = 0
        newly, is_believable = self.ledger.acknowledge(ack)
        self._meter.add(newly)
        if (position := self.ledger.acknowledged_position) is not None:
            self.owed.acknowledged(position, now)
        if not is_believable:
            self._outbox.events.append(PeerFault("ack_beyond_sent"))

    def probed(self, ack: AudioAck, may_give_up: Callable[[], bool]) -> bool:
        """Learns from a connection's first acknowledgement what the server holds.

        Returns:
            False where its counters cannot tell, and the session may be given up for that.
        """
        point = self.ledger.resume_point(ack)
        if not point.is_certain and may_give_up():
            return False
        for start, end in self.ledger.resume_at(point, ack):
            self._outbox.events.append(AudioLost(start, end, "provider_lost"))
        held, following = self.ledger.acknowledged_position, self._next_chunk()
        starts = [] if held is None else [held]
        starts += [] if following is None else [following.position]
        self.owed.resume(min(starts, default=self.owed.hears_from))
        self._forget_silence()
        return True

    def refused(self, now: float) -> bool:
        """The server refused a chunk: it is sent once more. False: that did not help."""
        self._last_ack_at = now
        self._outbox.events.append(PeerFault("chunk_refused"))
        seq = None if self.ledger.is_probing else self.ledger.reject_oldest()
        if seq is None or seq in self._refused_chunks:
            return False
        self._refused_chunks.add(seq)
        return True

    def ended_in_good_order(self) -> None:
        """The server had everything when it closed."""
        if not self.ledger.is_probing:
            self._meter.add(self.ledger.acknowledge_all())
            self._is_complete = True

    def unsaid(self) -> list[Span]:
        """The session is over: what it did not speak of, though it may have heard speech there."""
        acknowledged = self.ledger.acknowledged_position
        if acknowledged is None:
            return []
        if not self._is_complete:
            self.owed.interrupt(acknowledged)
        self.owed.resume(acknowledged)
        self._forget_silence()
        return self.owed.at_risk

    def ack_due(self) -> float:
        """When the connection counts as dead, while something is in flight."""
        oldest = self.ledger.in_flight[0].sent_at
        return max(oldest, self._last_ack_at) + self._limits.ack_timeout_s

    def due(self) -> float:
        """When something has to be done about what is in flight: a nudge, or giving up."""
        is_stuck = self.ledger.is_probing or not self.has_unsent
        if not is_stuck or self._nudges >= _MOST_NUDGES:
            return self.ack_due()
        return min(self.ack_due(), self.last_sent_at + self._limits.probe_timeout_s)

    def nudge(self, connection: int, now: float) -> None:
        """Sends more: a server that acknowledges several chunks at once may wait for another."""
        self._nudges += 1
        self.probe(connection, now)

    def probe(self, connection: int, now: float) -> None:
        """Sends a little something only to have it acknowledged."""
        self._send_zeros(connection, PROBE_SAMPLES, now)

    def _send_zeros(self, connection: int, count: int, now: float) -> None:
        self.ledger.sent_zeros(count, now)
        self._outbox.commands.append(SendAudio(connection, bytes(count * SAMPLE_BYTES)))
        self.last_sent_at = now

    def _forget_silence(self) -> None:
        """Speech ends a little earlier or later than is said: the edges do not count."""
        self.owed.at_risk = [
            (start, end)
            for start, end in self.owed.at_risk
            if self._buffer.is_audible(start + _EDGE, end - _EDGE)
        ]

    def _next_chunk(self) -> Chunk | None:
        resend = self.ledger.resend
        while resend:
            chunk = self._buffer.get(resend[0])
            if chunk is not None:
                return chunk
            resend.popleft()
        self._next_seq = max(self._next_seq, self._buffer.first_seq)
        return self._buffer.get(self._next_seq)

    def _take(self, chunk: Chunk) -> None:
        if self.ledger.resend:
            self.ledger.resend.popleft()
        else:
            self._next_seq = chunk.seq + 1

    def _may_send(self, chunk: Chunk) -> bool:
        return self.ledger.in_flight_samples + chunk.samples <= self._in_flight_limit
