"""One Gladia live session: slot, POST, socket, acknowledgements, resume, stop, result.

The states and what leads from one to another are in `legs.py`.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

from core.gladia.commands import (
    AcquireSlot,
    Answer,
    Closed,
    Command,
    Connect,
    CreateSession,
    Disconnect,
    FetchResult,
    HttpOutcome,
    ReleaseSlot,
    SendAudio,
    SendText,
)
from core.gladia.events import AudioLost, Event, PeerFault
from core.gladia.ledger import Ledger
from core.gladia.legs import Input, State, after
from core.gladia.limits import Limits
from core.gladia.messages import (
    KEEP_ALIVE,
    STOP_RECORDING,
    AudioAck,
    HeardUtterance,
    SessionCreated,
    decode_result,
)
from core.gladia.refusals import AfterClose, Refusal, after_close, after_post
from core.gladia.replay import Chunk, ReplayBuffer
from core.gladia.resume import ResumePolicy
from core.retry import Backoff

_POST_BACKOFF = Backoff(first_s=1.0, max_s=30.0)
_RETRY_AFTER_MAX_S = 300.0
_HTTP_PATIENCE_S = 30.0
"""The shell has shorter time-outs; this one catches a shell that forgot to answer."""
_FETCH_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
_SENDING = frozenset({State.STREAMING, State.QUIET, State.PROBING})
_OPEN = _SENDING | {State.STOPPING}
_WITHOUT_SESSION = frozenset({State.QUEUED, State.POSTING, State.WAITING})
_PAST = frozenset({State.RECONCILING, State.OVER, State.ENDED})


class Outbox:
    """Commands and events of all legs of one speaker, in order."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.events: list[Event] = []
        self._connections = 0

    def next_connection(self) -> int:
        self._connections += 1
        return self._connections


class Intent(Enum):
    """What is wanted of a leg."""

    RUN = auto()
    FINISH = auto()
    """Send what is left, stop, wait for the last finals."""
    ORPHAN = auto()
    """Only make sure that the session does not live on at Gladia."""


class Leg:
    """One session. The chain owns the audio and the text; the leg owns the protocol."""

    def __init__(
        self,
        number: int,
        *,
        buffer: ReplayBuffer,
        next_seq: int,
        request: tuple[Mapping[str, Any], Mapping[str, str]],
        limits: Limits,
        chance: Callable[[], float],
        outbox: Outbox,
        may_replace: Callable[[float], bool],
        wants_result: Callable[[int], bool],
    ) -> None:
        self.number = number
        self.state = State.QUEUED
        self.ledger = Ledger()
        self.next_seq = next_seq
        self.session_id = ""
        self.connection: int | None = None
        self.created_at: float | None = None
        self.refusal: Refusal | None = None
        self.over_reason = ""
        self.acknowledged_samples = 0
        """Grows as Gladia confirms audio; the owner takes it for its usage count."""
        self._buffer = buffer
        self._request = request
        self._limits = limits
        self._chance = chance
        self._outbox = outbox
        self._may_replace = may_replace
        self._wants_result = wants_result
        self._resume = ResumePolicy(limits, chance)
        self._in_flight_limit = round(limits.in_flight_s * 16_000)
        self._intent = Intent.RUN
        self._url = ""
        self._may_live_on = False
        self._stop_sent = False
        self._refusals = 0
        self._fetches = 0
        self._refused_chunks: set[int] = set()
        self._probe_allowance = 1
        self._wake_at: float | None = None
        self._last_sent_at = 0.0
        self._last_ack_at = 0.0

    @property
    def is_open(self) -> bool:
        return self.state in _OPEN

    @property
    def is_abandoned(self) -> bool:
        """What it says is not waited for: the audio is heard again by another leg."""
        return self._intent is Intent.ORPHAN

    @property
    def is_recovered(self) -> bool:
        """Audio flows, or would if there were any."""
        if self.state is State.PROBING:
            return not self.ledger.in_flight and not self.has_unsent
        return self.state in _SENDING

    @property
    def has_unsent(self) -> bool:
        return bool(self.ledger.resend) or self._buffer.pending(self.next_seq)

    @property
    def is_caught_up(self) -> bool:
        """Everything that was given is with the server, as far as it said."""
        return not self.has_unsent and self.ledger.is_settled

    @property
    def safe_seq(self) -> int:
        """Chunks before this one need not be sent to this session again."""
        return self.ledger.oldest_unsettled(self.next_seq)

    def begin(self) -> None:
        self._say(AcquireSlot(self.number))

    def slot_granted(self, now: float) -> None:
        if self.state is State.QUEUED:
            self._post(Input.SLOT, now)

    def post_result(self, outcome: HttpOutcome, now: float) -> None:
        if self.state is not State.POSTING:
            return
        match after_post(outcome):
            case SessionCreated(session_id, url):
                self.session_id, self._url = session_id, url
                self.created_at, self.refusal, self._refusals = now, None, 0
                self._may_live_on = True
                self._connect(Input.CREATED, now)
            case Refusal() as refusal:
                self._refused(refusal, now)

    def connection_made(self, now: float) -> None:
        if self.state is not State.CONNECTING:
            return
        self._resume.connected(now)
        self._last_sent_at = self._last_ack_at = now
        self._probe_allowance = 1
        if self._intent is Intent.ORPHAN:
            self._stop(now)
            return
        self._go(Input.REOPENED if self.ledger.is_probing else Input.OPENED)
        self.pump(now)

    def connection_lost(self, closed: Closed, now: float) -> None:
        """The socket is gone, or never opened."""
        self.connection = None
        failed_probe = self.state is State.PROBING and bool(self.ledger.in_flight)
        in_good_order = self.state is State.STOPPING and closed.code == 1000  # noqa: PLR2004 - RFC 6455
        if in_good_order and not self.ledger.is_probing:
            self.acknowledged_samples += self.ledger.acknowledge_all()
        if self._intent is Intent.ORPHAN:
            self._end()
            return
        action = after_close(closed)
        was_acknowledged = self.ledger.is_settled
        self.ledger.connection_lost()
        is_gone = action in {AfterClose.ENDED, AfterClose.NEW_SESSION}
        if in_good_order or (is_gone and self._stop_sent and was_acknowledged):
            self._closed(now)
            return
        window_s = self._limits.stop_timeout_s if self._stop_sent else self._limits.resume_window_s
        verdict = self._resume.dropped(action, now, window_s=window_s, failed_probe=failed_probe)
        if isinstance(verdict, str):
            self._may_live_on = self._may_live_on and not is_gone
            if self._stop_sent and was_acknowledged:
                self._closed(now)
            else:
                self._lost(verdict)
            return
        self._go(Input.DROPPED)
        self._wake_at = now + verdict

    def acknowledged(self, ack: AudioAck, now: float) -> None:
        """The server confirmed, or refused, audio."""
        if not self.is_open:
            return
        self._last_ack_at = now
        if not ack.accepted:
            self._chunk_refused(now)
            return
        self._resume.acknowledged()
        if self.ledger.is_probing and not self._probed(ack, now):
            return
        newly, is_believable = self.ledger.acknowledge(ack)
        self.acknowledged_samples += newly
        if not is_believable:
            self._tell(PeerFault("ack_beyond_sent"))
        self.pump(now)

    def heard(self, now: float) -> None:
        """Any message arrived: a server that talks is not waited out while it stops."""
        if self.state is State.STOPPING:
            self._wake_at = now + self._limits.stop_timeout_s

    def result_fetched(self, outcome: HttpOutcome, now: float) -> tuple[HeardUtterance, ...]:
        """Utterances of the stored result; empty until, and unless, there are any."""
        if self.state is not State.RECONCILING:
            return ()
        match outcome:
            case Answer(status=200, body=body):
                result = decode_result(body)
                if result.is_done:
                    self._end()
                    return result.utterances
            case Answer(status=status) if status < 500 and status not in {408, 429}:  # noqa: PLR2004 - HTTP
                self._end()
                return ()
            case _:
                pass
        self._fetch_later(now)
        return ()

    def pump(self, now: float) -> None:
        """Sends what may be sent."""
        if self.state not in _SENDING:
            return
        while (chunk := self._next_chunk()) is not None and self._may_send(chunk):
            self._send(chunk, now)
        if self._intent is Intent.FINISH and not self.has_unsent:
            if self.state is State.PROBING and self.ledger.in_flight:
                return
            self._stop(now)

    def finish(self, now: float) -> None:
        """No more audio will come: send the rest, stop, and wait for the last words."""
        self._intent = Intent.FINISH
        if self.state in {State.QUEUED, State.WAITING} and not self.has_unsent:
            self._end()
        elif self.state is State.POSTING and not self.has_unsent:
            self._intent = Intent.ORPHAN
        else:
            self.pump(now)

    def abandon(self, now: float) -> None:
        """Nobody needs this session any more: see that Gladia ends it."""
        self._intent = Intent.ORPHAN
        if self.state in _SENDING:
            self._stop(now)
        elif self.state is State.RESUMING or (self.state is State.OVER and self._may_live_on):
            if self.connection is not None:
                self._stop(now)
            else:
                self._connect(Input.RETRY, now)
        elif self.state not in {State.POSTING, State.CONNECTING, State.STOPPING}:
            self._end()

    def give_up(self, reason: str) -> None:
        """The session is of no use any more, though its socket may be open."""
        if self.state not in _WITHOUT_SESSION | _PAST:
            self._lost(reason)

    def abort(self) -> None:
        """Ends at once; says stop_recording if that is possible."""
        if self.state in _SENDING and self.connection is not None:
            self._say(SendText(self.connection, STOP_RECORDING))
        self._end()

    def deadline(self) -> float | None:
        if self.state in _SENDING:
            if self.ledger.in_flight:
                due = self._ack_due()
                if self.state is State.PROBING:
                    return min(due, self._probe_due())
                return due
            return self._last_sent_at + self._limits.keepalive_s
        return self._wake_at

    def handle_deadline(self, now: float) -> None:
        due = self.deadline()
        if due is None or now < due:
            return
        match self.state:
            case State.STREAMING | State.QUIET | State.PROBING:
                self._sending_deadline(now)
            case State.WAITING:
                self._post(Input.RETRY, now)
            case State.RESUMING:
                self._connect(Input.RETRY, now)
            case State.POSTING:
                late = Refusal("gladia_unavailable", is_permanent=False, detail="no answer")
                self._refused(late, now)
            case State.CONNECTING | State.STOPPING:
                self._drop("no answer", now)
            case State.RECONCILING:
                self._say(FetchResult(self.number, self.session_id))
                self._wake_at = now + _HTTP_PATIENCE_S
            case _:
                self._wake_at = None

    def _go(self, event: Input) -> None:
        self.state = after(self.state, event)
        self._wake_at = None

    def _say(self, command: Command) -> None:
        self._outbox.commands.append(command)

    def _tell(self, event: Event) -> None:
        self._outbox.events.append(event)

    def _post(self, event: Input, now: float) -> None:
        self._go(event)
        body, query = self._request
        self._say(CreateSession(self.number, body, query))
        self._wake_at = now + _HTTP_PATIENCE_S

    def _refused(self, refusal: Refusal, now: float) -> None:
        if self._intent is Intent.ORPHAN:
            self._end()
            return
        self.refusal = refusal
        self._refusals += 1
        self._tell(PeerFault(refusal.reason, f"{refusal.status}: {refusal.detail}"))
        self._go(Input.REFUSED)
        if refusal.is_permanent:
            delay = self._limits.degraded_retry_s
        else:
            delay = _POST_BACKOFF.delay_s(self._refusals, self._chance())
        self._wake_at = now + max(delay, min(refusal.retry_after_s or 0.0, _RETRY_AFTER_MAX_S))

    def _connect(self, event: Input, now: float) -> None:
        self._go(event)
        self.connection = self._outbox.next_connection()
        self._say(Connect(self.connection, self._url))
        self._wake_at = now + _HTTP_PATIENCE_S

    def _probed(self, ack: AudioAck, now: float) -> bool:
        """Learns from a first acknowledgement what the server holds; False: it is of no use."""
        if not self.ledger.in_flight:
            return False
        point = self.ledger.resume_point(ack)
        if not point.is_certain and self._may_replace(now):
            self._lost("counters_unclear")
            return False
        for start, end in self.ledger.resume_at(point, ack):
            self._tell(AudioLost(start, end, "provider_lost"))
        self._resume.probed()
        if self.state is State.PROBING:
            self._go(Input.PROBED)
        return True

    def _chunk_refused(self, now: float) -> None:
        """A refused chunk is sent once more; refused again, the connection is not trusted."""
        self._tell(PeerFault("chunk_refused"))
        seq = None if self.ledger.is_probing else self.ledger.reject_oldest()
        if seq is None or seq in self._refused_chunks:
            self._drop("chunk refused", now)
            return
        self._refused_chunks.add(seq)
        self.pump(now)

    def _next_chunk(self) -> Chunk | None:
        resend = self.ledger.resend
        while resend:
            chunk = self._buffer.get(resend[0])
            if chunk is not None:
                return chunk
            resend.popleft()
        self.next_seq = max(self.next_seq, self._buffer.first_seq)
        return self._buffer.get(self.next_seq)

    def _may_send(self, chunk: Chunk) -> bool:
        if self.state is State.PROBING:
            return len(self.ledger.in_flight) < self._probe_allowance
        return self.ledger.in_flight_samples + chunk.samples <= self._in_flight_limit

    def _send(self, chunk: Chunk, now: float) -> None:
        if self.ledger.resend:
            self.ledger.resend.popleft()
        else:
            self.next_seq += 1
        pcm = self._buffer.pcm(chunk)
        if pcm is None:
            self._tell(AudioLost(chunk.position, chunk.end_position, "buffer_full"))
            return
        assert self.connection is not None
        self.ledger.sent(chunk, now)
        self._say(SendAudio(self.connection, pcm))
        self._last_sent_at = now
        if self.state is State.QUIET:
            self._go(Input.AUDIO)

    def _sending_deadline(self, now: float) -> None:
        if self.ledger.in_flight:
            if now >= self._ack_due():
                self._tell(PeerFault("ack_timeout"))
                self._drop("no acknowledgement", now)
            else:
                self._probe_allowance += 1
                self.pump(now)
        else:
            assert self.connection is not None
            self._say(SendText(self.connection, KEEP_ALIVE))
            self._last_sent_at = now
            if self.state is not State.PROBING:
                self._go(Input.IDLE)

    def _ack_due(self) -> float:
        oldest = self.ledger.in_flight[0].sent_at
        return max(oldest, self._last_ack_at) + self._limits.ack_timeout_s

    def _probe_due(self) -> float:
        return self._last_sent_at + self._limits.probe_timeout_s

    def _stop(self, now: float) -> None:
        assert self.connection is not None
        self._say(SendText(self.connection, STOP_RECORDING))
        self._go(Input.STOPPED)
        self._stop_sent = True
        self._wake_at = now + self._limits.stop_timeout_s

    def _drop(self, reason: str, now: float) -> None:
        """Hangs up a connection that is of no use."""
        if self.connection is not None:
            self._say(Disconnect(self.connection))
        if self.state is State.STOPPING and self.ledger.is_settled:
            self.connection = None
            self._closed(now)
            return
        self.connection_lost(Closed(code=1006, reason=reason), now)

    def _lost(self, reason: str) -> None:
        self.over_reason = reason
        self._go(Input.LOST)

    def _closed(self, now: float) -> None:
        """The server is done with this session; is everything here?"""
        if self._intent is Intent.ORPHAN or not self._wants_result(self.number):
            self._end()
            return
        self._go(Input.CLOSED)
        self._say(ReleaseSlot(self.number))
        self._fetch_later(now)

    def _fetch_later(self, now: float) -> None:
        if self._fetches >= len(_FETCH_DELAYS_S):
            self._tell(PeerFault("no_result"))
            self._end()
            return
        self._wake_at = now + _FETCH_DELAYS_S[self._fetches]
        self._fetches += 1

    def _end(self) -> None:
        if self.state is State.ENDED:
            return
        if self.connection is not None:
            self._say(Disconnect(self.connection))
            self.connection = None
        if self.state is not State.RECONCILING:
            self._say(ReleaseSlot(self.number))
        self._go(Input.COMPLETE)
