"""One Gladia live session: slot, POST, socket, acknowledgements, resume, stop, result.

The states and what leads from one to another are in `legs.py`.
"""

from collections.abc import Callable, Mapping
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
    SendText,
)
from core.gladia.events import Event, PeerFault
from core.gladia.legs import Input, Intent, State, after
from core.gladia.limits import Limits
from core.gladia.messages import (
    KEEP_ALIVE,
    STOP_RECORDING,
    AudioAck,
    HeardUtterance,
    Notice,
    ServerMessage,
    SessionCreated,
    decode_result,
)
from core.gladia.meter import Meter
from core.gladia.outbox import Outbox
from core.gladia.placing import Source
from core.gladia.refusals import Refusal, after_close, after_post, has_ended
from core.gladia.replay import ReplayBuffer
from core.gladia.resume import ResumePolicy
from core.gladia.uplink import Uplink
from core.retry import Backoff

_POST_BACKOFF = Backoff(first_s=1.0, max_s=30.0)
_RETRY_AFTER_MAX_S = 300.0
_DELAYED = frozenset({408, 429})
_HTTP_PATIENCE_S = 30.0
"""The shell has shorter time-outs; this one catches a shell that forgot to answer."""
_FETCH_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
_SENDING = frozenset({State.STREAMING, State.QUIET, State.PROBING})
_OPEN = _SENDING | {State.STOPPING}
_WITHOUT_SESSION = frozenset({State.QUEUED, State.POSTING, State.WAITING})
_PAST = frozenset({State.RECONCILING, State.OVER, State.ENDED})


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
        meter: Meter,
        outbox: Outbox,
        may_replace: Callable[[float], bool],
        is_missing_from: Callable[[int], bool],
    ) -> None:
        self.number = number
        self.state = State.QUEUED
        self.uplink = Uplink(buffer, next_seq, limits, meter, outbox)
        self.session_id = ""
        self.connection: int | None = None
        self.created_at: float | None = None
        self.refusal: Refusal | None = None
        self.over_reason = ""
        self._request = request
        self._limits = limits
        self._chance = chance
        self._outbox = outbox
        self._may_replace = may_replace
        self._is_missing_from = is_missing_from
        self._resume = ResumePolicy(limits, chance)
        self._intent = Intent.RUN
        self._url = ""
        self._may_live_on = False
        self._stop_sent = False
        self._is_stop_answered = False
        self._refusals = 0
        self._fetches = 0
        self._wake_at: float | None = None

    @property
    def source(self) -> Source:
        """Who speaks when this leg says something."""
        owed, timeline = self.uplink.owed, self.uplink.ledger.timeline
        return Source(self.number, owed.interruptions, owed.hears_from, timeline)

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
        return self.state in {State.STREAMING, State.QUIET}

    def begin(self) -> None:
        self._say(AcquireSlot(self.number))

    def slot_granted(self, now: float) -> None:
        if self.state is State.QUEUED:
            self._post(Input.SLOT, now)

    def post_result(self, outcome: HttpOutcome, now: float) -> None:
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
        self.uplink.connected(now)
        if self._intent is Intent.ORPHAN:
            self._stop(now)
            return
        self._go(Input.REOPENED if self.uplink.ledger.is_probing else Input.OPENED)
        self.pump(now)

    def connection_lost(self, closed: Closed, now: float) -> None:
        """The socket is gone, or never opened."""
        self.connection = None
        failed_probe = self.state is State.PROBING and self.uplink.is_waiting
        in_good_order = self._is_stop_answered and closed.code == 1000  # noqa: PLR2004 - RFC 6455
        if in_good_order:
            self.uplink.ended_in_good_order()
        if self._intent is Intent.ORPHAN:
            self._end()
            return
        was_acknowledged = self.uplink.ledger.is_settled
        self.uplink.disconnected(now)
        if in_good_order:
            self._closed(now)
            return
        window_s = self._limits.stop_timeout_s if self._stop_sent else self._limits.resume_window_s
        action = after_close(closed)
        verdict = self._resume.dropped(action, now, window_s=window_s, failed_probe=failed_probe)
        if isinstance(verdict, str):
            self._may_live_on = self._may_live_on and not has_ended(closed)
            if self._stop_sent and was_acknowledged:
                self._closed(now)
            else:
                self._lost(verdict)
            return
        self._go(Input.DROPPED)
        self._wake_at = now + verdict

    def acknowledged(self, ack: AudioAck, now: float) -> None:
        """The server confirmed, or refused, audio."""
        if not self.is_open or self.is_abandoned:
            return
        if not ack.accepted:
            if not self.uplink.refused(now):
                self._drop("chunk refused", now)
            elif self.uplink.is_waiting and self._may_replace(now):
                self._lost("chunk_refused")  # later chunks are in already: it would come too late
            else:
                self.pump(now)
            return
        self._resume.acknowledged()
        if self.uplink.ledger.is_probing and not self._probed(ack, now):
            return
        self.uplink.acknowledged(ack, now)
        self.pump(now)

    def heard(self, message: ServerMessage, now: float) -> None:
        """Any message arrived: a server that talks is not waited out while it stops."""
        if self.state is State.STOPPING:
            self._wake_at = now + self._limits.stop_timeout_s
            self._is_stop_answered |= isinstance(message, Notice) and message.is_about_the_end

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
            case Answer(status=status) if status < 500 and status not in _DELAYED:  # noqa: PLR2004 - HTTP
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
        assert self.connection is not None
        if self.uplink.send(self.connection, now) and self.state is State.QUIET:
            self._go(Input.AUDIO)
        is_last = self._intent is Intent.FINISH and not self.uplink.has_unsent
        if is_last and self.state is not State.PROBING:
            self._stop(now)

    def finish(self, now: float) -> None:
        """No more audio will come: send the rest, stop, and wait for the last words."""
        self._intent = Intent.FINISH
        if self.state in {State.QUEUED, State.WAITING} and not self.uplink.has_unsent:
            self._end()
        elif self.state is State.POSTING and not self.uplink.has_unsent:
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

    def abort(self, now: float) -> None:
        """Ends at once; says stop_recording if that is possible."""
        if self.state in _SENDING and self.connection is not None:
            self._say(SendText(self.connection, STOP_RECORDING))
        self.uplink.disconnected(now)
        self._end()

    def deadline(self) -> float | None:
        if self.state in _SENDING:
            if not self.uplink.is_waiting:
                return self.uplink.last_sent_at + self._limits.keepalive_s
            return self.uplink.due()
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
            case State.RECONCILING:
                self._say(FetchResult(self.number, self.session_id))
                self._wake_at = now + _HTTP_PATIENCE_S
            case _:
                self._drop("no answer", now)

    def _go(self, event: Input) -> None:
        self.state = after(self.state, event)
        self._wake_at, self._is_stop_answered = None, False

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
        """Takes a connection's first acknowledgement; False: nothing else is to be done."""
        if not self.uplink.is_waiting:
            return False
        if not self.uplink.probed(ack, lambda: self._may_replace(now)):
            self._lost("counters_unclear")
            return False
        self._resume.probed()
        if self.state is State.PROBING:
            self._go(Input.PROBED)
        return True

    def _sending_deadline(self, now: float) -> None:
        assert self.connection is not None
        if not self.uplink.is_waiting:
            self._say(SendText(self.connection, KEEP_ALIVE))
            self.uplink.last_sent_at = now
            if self.state is not State.PROBING:
                self._go(Input.IDLE)
        elif now >= self.uplink.ack_due():
            self._tell(PeerFault("ack_timeout"))
            self._drop("no acknowledgement", now)
        else:
            self.uplink.nudge(self.connection, now)

    def _stop(self, now: float) -> None:
        assert self.connection is not None
        self._say(SendText(self.connection, STOP_RECORDING))
        self._go(Input.STOPPED)
        self._stop_sent = True
        self._resume = ResumePolicy(self._limits, self._chance)
        self._wake_at = now + self._limits.stop_timeout_s

    def _drop(self, reason: str, now: float) -> None:
        """Hangs up a connection that is of no use."""
        if self.connection is not None:
            self._say(Disconnect(self.connection))
        if self.state is State.STOPPING and self.uplink.ledger.is_settled:
            self.connection = None
            self.uplink.disconnected(now)
            self._closed(now)
            return
        self.connection_lost(Closed(code=1006, reason=reason), now)

    def _lost(self, reason: str) -> None:
        self.over_reason = reason
        self._go(Input.LOST)

    def _closed(self, now: float) -> None:
        """The server is done with this session; is everything here?"""
        is_complete = self.uplink.owed.is_settled and not self._is_missing_from(self.number)
        if self._intent is Intent.ORPHAN or is_complete:
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
