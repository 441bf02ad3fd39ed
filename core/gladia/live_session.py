"""One speaker's transcription through Gladia, for as long as the room lives. Sans-I/O.

Give it audio with positions on the speaker's time line; run its commands; hand on its events; call
`handle_deadline` when `deadline` has passed. No method raises on anything that Gladia does.

Theory of operation
-------------------
Audio goes into a bounded buffer first, whatever the state of the network (`replay.py`). A leg, one
Gladia session, is opened when there is audio and none is open; it sends from the buffer at the pace
of acknowledgements (`leg.py`, `legs.py`). The buffer keeps what was sent until Gladia has made
text of it (`hearing.py`).

A leg that cannot go on is given up: the next one hears the audio from the oldest unfinished
utterance on, and what it says comes out under the ids that are already shown (`utterances.py`).
Few replacements are allowed; after that Gladia counts as unstable, and one attempt a minute is
made while the buffer lasts. What falls out of the buffer is reported as `AudioLost`.

A long pause closes the session, since there are few; the next word opens another. A session near
its three hours is exchanged in a silence. A leg that only waits for its last words is kept aside
and does not stop the current one.
"""

from collections.abc import Callable, Mapping
from typing import assert_never

from core.audio import samples, seconds
from core.gladia.commands import Closed, Command, HttpOutcome, ReleaseSlot
from core.gladia.events import (
    Event,
    PeerFault,
    StateChanged,
    Usage,
)
from core.gladia.hearing import Hearing
from core.gladia.intake import Intake
from core.gladia.leg import Leg
from core.gladia.legs import State as LegState
from core.gladia.limits import Limits
from core.gladia.messages import AudioAck, Notice, SpeechEdge, Transcript, Translation, decode
from core.gladia.options import GladiaOptions
from core.gladia.outbox import Outbox
from core.gladia.outlook import LOST, UNSTABLE, Replacements, outlook, refused
from core.gladia.replay import Spill

_UNASKED_REASONS = frozenset({"rotation"})


class LiveSession:
    """See the module. Not thread-safe; `now` is monotonic seconds and never goes back."""

    def __init__(
        self,
        *,
        options: GladiaOptions,
        utterance_prefix: str,
        metadata: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        chance: Callable[[], float] = lambda: 0.5,
        spill: Spill | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            options: what to ask of Gladia.
            utterance_prefix: first part of each utterance id; unique in the session.
            metadata: sent to Gladia as `custom_metadata`, to find orphans by.
            limits: numbers to decide by.
            chance: uniform random numbers in 0..1, for jitter.
            spill: where audio goes that memory has no room for.
        """
        self.finished = False
        """Nothing will follow; all commands that remain should still be run."""
        self._options = options
        self._limits = limits or Limits()
        self._metadata = dict(metadata or {})
        self._chance = chance
        self._outbox = Outbox()
        emit = self._outbox.events.append
        self._intake = Intake(self._limits, spill, emit, self._safe_seq)
        self._buffer = self._intake.buffer
        self._hearing = Hearing(utterance_prefix, options, self._limits, emit)
        self._book = self._hearing.book
        self._legs: dict[int, Leg] = {}
        self._current: Leg | None = None
        self._leg_count = 0
        self._cursor = 0
        self._paused_at: float | None = None
        self._stopping = False
        self._replacements = Replacements(self._limits)
        self._begun_at = 0.0
        self._unused_samples = 0
        self._state = StateChanged("idle")

    # What the owner says.

    def send_audio(self, position: int, pcm: bytes, now: float) -> None:
        """Takes ownership of s16le mono 16 kHz audio that was captured from `position` on.

        Raises:
            LocalProtocolError: positions went back, or half a sample was given.
        """
        if self._stopping or not pcm:
            return
        self._paused_at = None
        if self._intake.add(position, pcm, now):
            self._flow(now)

    def send_silence(self, count: int, now: float) -> None:
        """Sends `count` zero samples that are not on the time line: they end an utterance."""
        if not self._stopping:
            self._intake.add_silence(count, now)
            self._flow(now)

    def pause(self, now: float) -> None:
        """Nobody speaks for now; the session is closed when that lasts."""
        if self._stopping:
            return
        self._intake.flush(now)
        if self._paused_at is None:
            self._paused_at = now
        self._flow(now)

    def stop(self, now: float) -> None:
        """No more audio, ever: sends the rest and waits for the last finals."""
        if self._stopping:
            return
        self._intake.flush(now)
        self._stopping = True
        self._paused_at = None
        if self._current is not None:
            self._current.finish(now)
        self._flow(now)

    def renew(self, reason: str, now: float) -> None:
        """Gives up the current session and replays what it did not understand into a new one."""
        if self._current is not None:
            self._current.give_up(reason)
        self._advance(now)

    def abort(self, now: float) -> None:
        """Ends now. What was not sent is reported lost, what was not final becomes provisional."""
        if self.finished:
            return
        self._intake.flush(now)
        self._stopping = True
        self._intake.give_up(self._safe_seq(), now)
        for leg in self._legs.values():
            leg.abort()
        self._current = None
        self._cursor = self._buffer.end_seq
        self._book.finish()
        self._advance(now)

    # What the shell reports.

    def slot_granted(self, leg: int, now: float) -> None:
        if (granted := self._legs.get(leg)) is None:
            self._outbox.commands.append(ReleaseSlot(leg))
            return
        granted.slot_granted(now)
        self._advance(now)

    def post_result(self, leg: int, outcome: HttpOutcome, now: float) -> None:
        if (poster := self._legs.get(leg)) is not None:
            poster.post_result(outcome, now)
            self._advance(now)

    def connection_made(self, connection: int, now: float) -> None:
        if (leg := self._leg_of(connection)) is not None:
            leg.connection_made(now)
            self._advance(now)

    def connection_lost(self, connection: int, closed: Closed, now: float) -> None:
        if (leg := self._leg_of(connection)) is not None:
            kind = "connection_lost" if closed.opened else "handshake_failed"
            if closed.code != 1000:  # noqa: PLR2004 - RFC 6455
                detail = f"{closed.code or closed.status}: {closed.reason}"
                self._outbox.events.append(PeerFault(kind, detail))
            if leg is self._current:
                self._hearing.connection_lost()
            leg.connection_lost(closed, now)
            self._advance(now)

    def result_fetched(self, leg: int, outcome: HttpOutcome, now: float) -> None:
        if (asker := self._legs.get(leg)) is not None:
            utterances = asker.result_fetched(outcome, now)
            self._book.result(leg, asker.uplink.ledger.timeline, utterances)
            self._advance(now)

    def receive_message(self, connection: int, text: str, now: float) -> None:
        """A text frame of the server."""
        leg = self._leg_of(connection)
        if leg is None:
            return
        leg.heard(now)
        match decode(text):
            case AudioAck() as ack:
                leg.acknowledged(ack, now)
                self._count_usage(leg)
                self._release(leg)
            case Transcript() as transcript:
                self._transcript(leg, transcript, now)
            case SpeechEdge() as edge:
                if leg is self._current:
                    self._hearing.speech(leg.uplink.ledger.timeline, edge)
            case Translation() as translation:
                self._book.translation(leg.number, translation)
            case Notice():
                pass
            case PeerFault() as fault:
                self._outbox.events.append(fault)
            case never:
                assert_never(never)
        self._advance(now)

    # Time.

    def deadline(self) -> float | None:
        """When `handle_deadline` is due; it may move with every call of another method."""
        waits = [leg.deadline() for leg in self._legs.values()]
        waits += [
            self._intake.deadline(),
            self._idle_due(),
            self._replacements.blocked_until,
            self._rotation_due(),
            self._book.deadline() if self._may_expire() else None,
        ]
        if self._waits_untold():
            waits.append(self._begun_at + self._limits.queue_notice_s)
        return min((due for due in waits if due is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Does whatever is due; harmless when nothing is."""
        for leg in [*self._legs.values()]:
            leg.handle_deadline(now)
        self._intake.handle_deadline(now)
        self._replacements.handle_deadline(now)
        rotation = self._rotation_due()
        if rotation is not None and now >= rotation and self._current is not None:
            self._current.give_up("rotation")
        if self._may_expire():
            self._book.expire(now)
        self._flow(now)

    def commands(self) -> list[Command]:
        """Commands since the last call, to be run in order."""
        taken, self._outbox.commands = self._outbox.commands, []
        return taken

    def events(self) -> list[Event]:
        """Events since the last call, in order."""
        taken = self._outbox.events[:]
        self._outbox.events.clear()
        return taken

    # Audio.

    def _safe_seq(self) -> int:
        return self._cursor if self._current is None else self._current.uplink.safe_seq

    def _release(self, leg: Leg) -> None:
        if leg is not self._current:
            return
        acknowledged = leg.uplink.ledger.acknowledged_position
        if acknowledged is not None:
            self._buffer.release(self._hearing.keep_from(acknowledged), leg.uplink.safe_seq)
            leg.uplink.ledger.forget(self._buffer.first_seq)

    def _count_usage(self, leg: Leg) -> None:
        self._unused_samples += leg.uplink.acknowledged_samples
        leg.uplink.acknowledged_samples = 0
        if self._unused_samples >= samples(self._limits.usage_s):
            self._report_usage()

    def _report_usage(self) -> None:
        if self._unused_samples:
            self._outbox.events.append(Usage(seconds(self._unused_samples)))
            self._unused_samples = 0

    # Text.

    def _transcript(self, leg: Leg, transcript: Transcript, now: float) -> None:
        timeline = leg.uplink.ledger.timeline
        if leg.is_abandoned:
            self._book.late_transcript(leg.number, timeline, transcript)
            return
        source = leg.connection or 0
        self._hearing.transcript(leg.number, source, timeline, transcript, now)

    def _wants_result(self, leg: int) -> bool:
        is_current = self._current is not None and self._current.number == leg
        has_gaps = is_current and self._hearing.has_uncovered_speech
        return has_gaps or self._book.is_missing_from(leg)

    # Legs.

    def _flow(self, now: float) -> None:
        if self._current is not None:
            self._current.pump(now)
        self._advance(now)

    def _advance(self, now: float) -> None:
        """Draws the consequences of whatever happened."""
        if self._current is not None:
            self._review(self._current, now)
        for leg in [*self._legs.values()]:
            if leg is not self._current:
                self._bury(leg, now)
        has_audio = self._buffer.pending(self._cursor)
        if self._current is None and self._replacements.blocked_until is None and has_audio:
            self._open_leg(now)
        if self._stopping and not self._legs and not has_audio and not self.finished:
            self._book.finish()
            self._intake.losses.report()
            self._report_usage()
            self.finished = True
        self._tell_state(now)

    def _open_leg(self, now: float) -> None:
        self._leg_count += 1
        leg = Leg(
            self._leg_count,
            buffer=self._buffer,
            next_seq=self._cursor,
            request=(self._options.request_body(self._metadata), self._options.query()),
            limits=self._limits,
            chance=self._chance,
            outbox=self._outbox,
            may_replace=self._replacements.may,
            wants_result=self._wants_result,
        )
        self._legs[leg.number] = self._current = leg
        first = self._buffer.get(max(self._cursor, self._buffer.first_seq))
        self._hearing.restart(self._intake.end_position if first is None else first.position)
        self._begun_at = now
        leg.begin()
        if self._stopping:
            leg.finish(now)

    def _review(self, leg: Leg, now: float) -> None:
        if leg.state is LegState.OVER:
            self._replace(leg, now)
        elif leg.state is LegState.ENDED:
            self._set_aside(leg)
            if self._buffer.pending(self._cursor):
                self._replacements.note(now)
        elif self._stopping and leg.refusal is not None and leg.refusal.is_permanent:
            self._set_state(refused(leg.refusal), now)
            self.abort(now)
        elif self._paused_at is not None and not self._stopping:
            self._review_idle(leg, now)

    def _review_idle(self, leg: Leg, now: float) -> None:
        """Nobody speaks: is it time to close, or to exchange, the session?"""
        assert self._paused_at is not None
        is_over = now >= self._paused_at + self._limits.idle_close_s
        if leg.is_recovered and leg.uplink.is_caught_up:
            if is_over or self._is_worn(leg, now):
                self._set_aside(leg)
                leg.finish(now)
        elif is_over and self._hearing.is_quiet and leg.uplink.is_caught_up:
            self._set_aside(leg)
            leg.abandon(now)

    def _is_worn(self, leg: Leg, now: float) -> bool:
        """Old, or holding back finals that only its stored result can tell."""
        age = 0.0 if leg.created_at is None else now - leg.created_at
        if age >= self._limits.rotate_after_s and self._hearing.is_quiet:
            return True
        return self._hearing.may_miss_finals and now >= self._overdue_at()

    def _idle_due(self) -> float | None:
        """When a pause has consequences; past troubles end it themselves when they are over."""
        leg = self._current
        if self._paused_at is None or leg is None or self._stopping:
            return None
        if not (leg.is_recovered and leg.uplink.is_caught_up):
            is_stuck = self._hearing.is_quiet and leg.uplink.is_caught_up
            return self._paused_at + self._limits.idle_close_s if is_stuck else None
        if self._hearing.may_miss_finals:
            return self._overdue_at()
        return self._paused_at + self._limits.idle_close_s

    def _overdue_at(self) -> float:
        assert self._paused_at is not None
        return self._paused_at + self._limits.final_grace_s

    def _set_aside(self, leg: Leg) -> None:
        self._cursor = leg.uplink.safe_seq
        self._current = None

    def _replace(self, leg: Leg, now: float) -> None:
        """The session is lost: the next one hears again what was not understood."""
        self._cursor = leg.uplink.safe_seq
        acknowledged = leg.uplink.ledger.acknowledged_position
        if acknowledged is not None:
            start = self._hearing.replay_from(acknowledged)
            first = self._intake.wanted_again(start, acknowledged, now)
            self._cursor = min(self._cursor, first)
        self._book.hand_over(leg.number, self._leg_count + 1)
        self._current = None
        leg.abandon(now)
        self._outbox.events.append(PeerFault("session_replaced", leg.over_reason))
        if leg.over_reason in _UNASKED_REASONS:
            return
        self._set_state(LOST, now)
        self._replacements.note(now)

    def _bury(self, leg: Leg, now: float) -> None:
        if leg.state is LegState.OVER:
            leg.abandon(now)
        if leg.state is LegState.ENDED:
            self._count_usage(leg)
            self._repeat(leg, now)
            self._book.close_leg(leg.number)
            del self._legs[leg.number]

    def _repeat(self, leg: Leg, now: float) -> None:
        """An utterance that even the stored result lacks is heard again, if its audio is here."""
        start = self._hearing.repeat_from(leg.number)
        if start is None or self._current is not None or not self._replacements.may(now):
            return
        first = self._buffer.seq_at(start)
        if first < self._cursor and not self.finished:
            self._cursor = first
            self._book.hand_over(leg.number, self._leg_count + 1)
            self._replacements.note(now)

    def _leg_of(self, connection: int) -> Leg | None:
        for leg in self._legs.values():
            if leg.connection == connection:
                return leg
        return None

    def _rotation_due(self) -> float | None:
        leg = self._current
        if leg is None or leg.created_at is None or not leg.is_open or self._stopping:
            return None
        return leg.created_at + self._limits.rotate_at_latest_s

    def _may_expire(self) -> bool:
        return self._current is None or (
            self._current.is_recovered and not self._current.uplink.has_unsent
        )

    # State.

    def _waits_untold(self) -> bool:
        leg = self._current
        is_queued = leg is not None and leg.state is LegState.QUEUED
        return is_queued and self._state.state != "queued" and not self._stopping

    def _tell_state(self, now: float) -> None:
        leg = self._current
        state: StateChanged | None = StateChanged("idle")
        if self.finished:
            state = StateChanged("done")
        elif self._stopping:
            state = StateChanged("draining")
        elif leg is not None:
            waited_s = now - self._begun_at
            state = outlook(leg, waited_s, self._limits.queue_notice_s)
        elif self._replacements.blocked_until is not None:
            state = UNSTABLE
        if state is not None:
            self._set_state(state, now)

    def _set_state(self, state: StateChanged, now: float) -> None:
        if state == self._state:
            return
        if state.state == "live":
            self._book.postpone(now)
        self._state = state
        self._outbox.events.append(state)
