"""The legs of one speaker: when to open one, when to part with it, where the next begins."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core.audio import samples
from core.gladia.events import PeerFault
from core.gladia.hearing import Hearing
from core.gladia.intake import Intake
from core.gladia.leg import Leg
from core.gladia.legs import State
from core.gladia.limits import Limits
from core.gladia.meter import Meter
from core.gladia.outbox import Outbox

_UNASKED_REASONS = frozenset({"rotation"})


class Replacements:
    """At most so many sessions may follow one that broke; then there is a long pause."""

    def __init__(self, limits: Limits) -> None:
        self.blocked_until: float | None = None
        """No session may be opened before."""
        self._limits = limits
        self._made_at: list[float] = []

    def may(self, now: float) -> bool:
        since = now - self._limits.new_sessions_per_s
        self._made_at = [at for at in self._made_at if at > since]
        return len(self._made_at) < self._limits.new_sessions

    def note(self, now: float) -> None:
        """A session broke and will be followed by another."""
        if not self.may(now):
            self.blocked_until = now + self._limits.degraded_retry_s
        self._made_at.append(now)

    def handle_deadline(self, now: float) -> None:
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None


class Chain:
    """At most one leg hears (`current`); others wait for their last words, or to be stopped."""

    def __init__(
        self,
        *,
        request: tuple[Mapping[str, Any], Mapping[str, str]],
        limits: Limits,
        chance: Callable[[], float],
        intake: Intake,
        hearing: Hearing,
        meter: Meter,
        outbox: Outbox,
    ) -> None:
        self.current: Leg | None = None
        self.begun_at = 0.0
        """When the current leg began."""
        self.replacements = Replacements(limits)
        self.has_broken = False
        """The current leg, or the next, follows one that broke; the owner resets it."""
        self._request = request
        self._limits = limits
        self._chance = chance
        self._intake = intake
        self._buffer = intake.buffer
        self._hearing = hearing
        self._book = hearing.book
        self._meter = meter
        self._outbox = outbox
        self._legs: dict[int, Leg] = {}
        self._count = 0
        self._cursor = 0
        self._paused_at: float | None = None
        self._is_wanted = False
        self._is_stopping = False
        self._is_aborted = False
        self._margin = samples(limits.replay_margin_s)

    @property
    def is_over(self) -> bool:
        """Stopped, and nothing is left to be sent or awaited."""
        return self._is_stopping and not self._legs and not self._buffer.pending(self._cursor)

    @property
    def is_hopeless(self) -> bool:
        """Stopped, and only a human could make Gladia take what is left."""
        refusal = None if self.current is None else self.current.refusal
        return self._is_stopping and refusal is not None and refusal.is_permanent

    @property
    def may_expire(self) -> bool:
        """Gladia has had all audio and every chance to send its finals."""
        leg = self.current
        return leg is None or (leg.is_recovered and not leg.uplink.has_unsent)

    def leg(self, number: int) -> Leg | None:
        return self._legs.get(number)

    def leg_of(self, connection: int) -> Leg | None:
        for leg in self._legs.values():
            if leg.connection == connection:
                return leg
        return None

    def safe_seq(self) -> int:
        """Chunks before this one are with Gladia, as far as it said."""
        return self._cursor if self.current is None else self.current.uplink.safe_seq

    def speak(self) -> None:
        """Audio comes in."""
        self._paused_at = None
        self._is_wanted = False

    def pause(self, now: float) -> None:
        if self._paused_at is None:
            self._paused_at = now

    def spare(self) -> None:
        """Others wait for a session: this pause, if it is one, is long enough as it is."""
        self._is_wanted = self._paused_at is not None

    def stop(self, now: float) -> None:
        self._is_stopping = True
        self._paused_at = None
        if self.current is not None:
            self.current.finish(now)

    def renew(self, reason: str) -> None:
        if self.current is not None:
            self.current.give_up(reason)

    def abort(self) -> None:
        self._is_stopping = self._is_aborted = True
        for leg in self._legs.values():
            leg.abort()
        self.current = None
        self._cursor = self._buffer.end_seq

    def release(self, leg: Leg) -> None:
        """Forgets audio that was acknowledged and understood."""
        if leg is not self.current:
            return
        acknowledged = leg.uplink.ledger.acknowledged_position
        if acknowledged is not None:
            self._buffer.release(self._hearing.keep_from(acknowledged), leg.uplink.safe_seq)
            leg.uplink.ledger.forget(self._buffer.first_seq)

    def deadlines(self) -> Iterator[float | None]:
        for leg in self._legs.values():
            yield leg.deadline()
        yield self._idle_due()
        yield self._rotation_due()
        yield self.replacements.blocked_until

    def handle_deadline(self, now: float) -> None:
        for leg in [*self._legs.values()]:
            leg.handle_deadline(now)
        self.replacements.handle_deadline(now)
        rotation = self._rotation_due()
        if rotation is not None and now >= rotation:
            self.renew("rotation")

    def flow(self, now: float) -> None:
        """Sends what may be sent."""
        if self.current is not None:
            self.current.pump(now)

    def advance(self, now: float) -> None:
        """Draws the consequences of whatever happened."""
        if self.current is not None:
            self._review(self.current, now)
        for leg in [*self._legs.values()]:
            if leg is not self.current:
                self._bury(leg, now)
        is_free = self.current is None and self.replacements.blocked_until is None
        if is_free and self._buffer.pending(self._cursor):
            self._open(now)

    def _open(self, now: float) -> None:
        self._count += 1
        leg = Leg(
            self._count,
            buffer=self._buffer,
            next_seq=self._cursor,
            request=self._request,
            limits=self._limits,
            chance=self._chance,
            meter=self._meter,
            outbox=self._outbox,
            may_replace=self.replacements.may,
            wants_result=self._wants_result,
        )
        self._legs[leg.number] = self.current = leg
        first = self._buffer.get(max(self._cursor, self._buffer.first_seq))
        self._hearing.restart(self._intake.end_position if first is None else first.position)
        self.begun_at = now
        leg.begin()
        if self._is_stopping:
            leg.finish(now)

    def _review(self, leg: Leg, now: float) -> None:
        if leg.state is State.OVER:
            self._replace(leg, now)
        elif leg.state is State.ENDED:
            self._set_aside(leg)
            if self._buffer.pending(self._cursor):
                self.replacements.note(now)
        elif self._paused_at is not None and not self._is_stopping:
            self._review_idle(leg, now)

    def _review_idle(self, leg: Leg, now: float) -> None:
        """Nobody speaks: is it time to close, or to exchange, the session?"""
        assert self._paused_at is not None
        is_over = self._is_wanted or now >= self._paused_at + self._limits.idle_close_s
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
        leg = self.current
        if self._paused_at is None or leg is None or self._is_stopping:
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
        self.current = None

    def _replace(self, leg: Leg, now: float) -> None:
        """The session is lost: the next one hears again what was not understood."""
        self._cursor = leg.uplink.safe_seq
        acknowledged = leg.uplink.ledger.acknowledged_position
        if acknowledged is not None:
            start = self._hearing.replay_from(acknowledged)
            first = self._intake.wanted_again(start, acknowledged, now)
            self._cursor = min(self._cursor, first)
        self._book.hand_over(leg.number, self._count + 1)
        self.current = None
        leg.abandon(now)
        self._outbox.events.append(PeerFault("session_replaced", leg.over_reason))
        if leg.over_reason in _UNASKED_REASONS:
            return
        self.has_broken = True
        self.replacements.note(now)

    def _bury(self, leg: Leg, now: float) -> None:
        if leg.state is State.OVER:
            leg.abandon(now)
        if leg.state is State.ENDED:
            self._repeat(leg, now)
            self._book.close_leg(leg.number)
            del self._legs[leg.number]

    def _repeat(self, leg: Leg, now: float) -> None:
        """An utterance that even the stored result lacks is heard again, if its audio is here."""
        start = self._hearing.repeat_from(leg.number)
        if start is None or self.current is not None or not self.replacements.may(now):
            return
        first = self._buffer.seq_at(start)
        oldest = self._buffer.get(first)
        is_here = oldest is not None and oldest.position <= start + self._margin
        if is_here and first < self._cursor and not self._is_aborted:
            self._cursor = first
            self._book.hand_over(leg.number, self._count + 1)
            self.replacements.note(now)

    def _rotation_due(self) -> float | None:
        leg = self.current
        if leg is None or leg.created_at is None or not leg.is_open or self._is_stopping:
            return None
        return leg.created_at + self._limits.rotate_at_latest_s

    def _wants_result(self, leg: int) -> bool:
        is_current = self.current is not None and self.current.number == leg
        has_gaps = is_current and self._hearing.has_uncovered_speech
        return has_gaps or self._book.is_missing_from(leg)
