"""Audio from the replay buffer to one session: pace, acknowledgements, repetition."""

from collections.abc import Callable

from core.audio import SAMPLE_BYTES, samples
from core.gladia.commands import SendAudio
from core.gladia.events import AudioLost, PeerFault
from core.gladia.ledger import PROBE_SAMPLES, Ledger
from core.gladia.limits import Limits
from core.gladia.messages import AudioAck
from core.gladia.meter import Meter
from core.gladia.outbox import Outbox
from core.gladia.replay import Chunk, ReplayBuffer

_PROBE = bytes(PROBE_SAMPLES * SAMPLE_BYTES)
_MOST_NUDGES = 8


class Uplink:
    """Knows what to send next to this session, over whichever connection it has."""

    def __init__(
        self, buffer: ReplayBuffer, next_seq: int, limits: Limits, meter: Meter, outbox: Outbox
    ) -> None:
        self.ledger = Ledger()
        self.last_sent_at = 0.0
        self._buffer = buffer
        self._next_seq = next_seq
        self._limits = limits
        self._meter = meter
        self._outbox = outbox
        self._in_flight_limit = samples(limits.in_flight_s)
        self._nudges = 0
        self._last_ack_at = 0.0
        self._refused_chunks: set[int] = set()

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

    def connected(self, now: float) -> None:
        self.last_sent_at = self._last_ack_at = now
        self._nudges = 0

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
            count += 1
        return count > 0

    def acknowledged(self, ack: AudioAck, now: float) -> None:
        """Applies an acknowledgement of a connection whose beginning is known."""
        self._last_ack_at = now
        self._nudges = 0
        newly, is_believable = self.ledger.acknowledge(ack)
        self._meter.add(newly)
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

    def ack_due(self) -> float:
        """When the connection counts as dead, while something is in flight."""
        oldest = self.ledger.in_flight[0].sent_at
        return max(oldest, self._last_ack_at) + self._limits.ack_timeout_s

    def nudge_due(self) -> float | None:
        """When more should be sent to get an acknowledgement of what is in flight."""
        is_stuck = self.ledger.is_probing or not self.has_unsent
        if not is_stuck or self._nudges >= _MOST_NUDGES:
            return None
        return self.last_sent_at + self._limits.probe_timeout_s

    def nudge(self, connection: int, now: float) -> None:
        """A server that acknowledges several chunks at once may wait for another one."""
        self._nudges += 1
        self.probe(connection, now)

    def probe(self, connection: int, now: float) -> None:
        """Sends a little something only to have it acknowledged."""
        self.ledger.sent_probe(now)
        self._outbox.commands.append(SendAudio(connection, _PROBE))
        self.last_sent_at = now

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
