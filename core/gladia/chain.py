"""The legs of one speaker: when to open one, when to part with it, where the next begins."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from core.audio import samples
from core.gladia.events import PeerFault
from core.gladia.intake import Intake
from core.gladia.leg import Leg
from core.gladia.legs import State
from core.gladia.limits import Limits
from core.gladia.meter import Meter
from core.gladia.outbox import Outbox
from core.gladia.overlap import Span
from core.gladia.replacements import Allowance, Replacements
from core.gladia.utterances import UtteranceBook

_UNASKED_REASONS = frozenset({"rotation"})


class Chain:
    """At most one leg hears (`current`); others wait for their last words, or to be stopped."""

    def __init__(
        self,
        *,
        request: tuple[Mapping[str, Any], Mapping[str, str]],
        limits: Limits,
        chance: Callable[[], float],
        intake: Intake,
        book: UtteranceBook,
        meter: Meter,
        outbox: Outbox,
    ) -> None:
        self.current: Leg | None = None
        self.begun_at = 0.0
        """When the current leg began."""
        self.replacements = Replacements(limits)
        self._repeats = Allowance(limits.repeats, limits.new_sessions_per_s)
        self.has_broken = False
        """The current leg, or the next, follows one that broke; the owner resets it."""
        self._request = request
        self._limits = limits
        self._chance = chance
        self._intake = intake
        self._buffer = intake.buffer
        self._book = book
        self._meter = meter
        self._outbox = outbox
        self._legs: dict[int, Leg] = {}
        self._count = 0
        self._cursor = 0
        self._again: list[Span] = []
        """What no leg has spoken of so far; the next one hears it before anything else."""
        self._paused_at: float | None = None
        self._is_wanted = False
        self._is_stopping = False
        self._is_aborted = False
        self._margin = samples(limits.replay_margin_s)
        self._reserve = samples(limits.reserve_s)

    @property
    def is_over(self) -> bool:
        """Stopped, and nothing is left to be sent or awaited."""
        return self._is_stopping and not self._legs and not self._has_work

    @property
    def is_hopeless(self) -> bool:
        """Stopped, and only a human could make Gladia take what is left."""
        refusal = None if self.current is None else self.current.refusal
        return self._is_stopping and refusal is not None and refusal.is_permanent

    @property
    def may_expire(self) -> bool:
        """Gladia has had all audio and every chance to send its finals."""
        leg = self.current
        if leg is None:
            return not self._has_work
        return leg.is_recovered and not leg.uplink.has_unsent

    @property
    def _has_work(self) -> bool:
        """Something would be sent, if there were a leg."""
        return bool(self._again) or self._buffer.pending(self._cursor)

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

    def renew(self, reason: str) -> int | None:
        """Gives the current leg up; returns from where on the next one hears what it had."""
        if self.current is None:
            return None
        wanted = self._wanted_from(self.current)
        self.current.give_up(reason)
        return None if wanted is None else self._shortly_before(wanted)

    def abort(self, now: float) -> None:
        self._is_stopping = self._is_aborted = True
        for leg in self._legs.values():
            leg.abort(now)
        self.current = None
        self._cursor = self._buffer.end_seq
        self._lose(self._book.unsaid(self._again), now)
        self._again = []

    def release(self, leg: Leg) -> None:
        """Forgets audio that was acknowledged and understood."""
        acknowledged = leg.uplink.ledger.acknowledged_position
        if leg is self.current and acknowledged is not None:
            wanted = (self._wanted_from(other) for other in self._legs.values())
            starts = [start for start in wanted if start is not None]
            keep_from = min([acknowledged - self._reserve, *starts]) - self._margin
            self._book.forget(keep_from)
            self._buffer.release(keep_from, leg.uplink.safe_seq)
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
        if is_free and self._has_work:
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
            is_missing_from=self._book.is_missing_from,
        )
        if self._again:
            leg.uplink.repeat(self._chunks_again(now))
        self._legs[leg.number] = self.current = leg
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
        elif is_over and self._is_quiet and leg.uplink.is_caught_up:
            self._set_aside(leg)
            self._settle(leg, now)
            leg.abandon(now)

    def _is_worn(self, leg: Leg, now: float) -> bool:
        """Old, or owing text that its stored result, or another session, may have."""
        age = 0.0 if leg.created_at is None else now - leg.created_at
        if age >= self._limits.rotate_after_s and self._is_quiet:
            return True
        return bool(leg.uplink.owed.at_risk) and now >= self._overdue_at()

    def _idle_due(self) -> float | None:
        """When a pause has consequences; past troubles end it themselves when they are over."""
        leg = self.current
        if self._paused_at is None or leg is None or self._is_stopping:
            return None
        if not (leg.is_recovered and leg.uplink.is_caught_up):
            is_stuck = self._is_quiet and leg.uplink.is_caught_up
            return self._paused_at + self._limits.idle_close_s if is_stuck else None
        if leg.uplink.owed.at_risk:
            return self._overdue_at()
        return self._paused_at + self._limits.idle_close_s

    def _overdue_at(self) -> float:
        assert self._paused_at is not None
        return self._paused_at + self._limits.final_grace_s

    @property
    def _is_quiet(self) -> bool:
        """No utterance waits for its final."""
        return self._book.unfinished_start() is None

    def _wanted_from(self, leg: Leg) -> int | None:
        """Where the audio begins that the next leg has to hear, if this one is lost."""
        wanted, unfinished = leg.uplink.wanted_from, self._book.unfinished_start()
        if leg.is_abandoned or wanted is None:
            return None
        return wanted if unfinished is None else min(wanted, unfinished)

    def _shortly_before(self, position: int) -> int:
        """Where to begin, to hear what begins here: not within what is final already."""
        return max(position - self._margin, self._book.final_end_before(position))

    def _set_aside(self, leg: Leg) -> None:
        self._cursor = leg.uplink.safe_seq
        self.current = None

    def _replace(self, leg: Leg, now: float) -> None:
        """The session is lost: the next one hears again what was not understood."""
        self._cursor = leg.uplink.safe_seq
        acknowledged, wanted = leg.uplink.ledger.acknowledged_position, self._wanted_from(leg)
        start = 0
        if acknowledged is not None and wanted is not None:
            start = self._shortly_before(wanted)
            first = self._intake.wanted_again(start, acknowledged, now)
            self._cursor = min(self._cursor, first)
        self._book.hand_over(leg.number, self._count + 1, start)
        self.current = None
        leg.abandon(now)
        self._outbox.events.append(PeerFault("session_replaced", leg.over_reason))
        if leg.over_reason in _UNASKED_REASONS:
            return
        self.has_broken = True
        self.replacements.note(now)

    def _bury(self, leg: Leg, now: float) -> None:
        if leg.state is State.OVER:
            self._settle(leg, now)
            leg.abandon(now)
        if leg.state is State.ENDED:
            if not leg.is_abandoned:
                self._settle(leg, now)
            self._book.close_leg(leg.number)
            del self._legs[leg.number]

    def _settle(self, leg: Leg, now: float) -> None:
        """What even the stored result does not speak of is heard again, or lost."""
        unsaid = self._book.unsaid(leg.uplink.unsaid())
        if self.current is not None:
            self.current.uplink.owed.at_risk += unsaid  # it is heard again after that one
            return
        heard_to = leg.uplink.ledger.acknowledged_position or 0
        unfinished = self._book.worth_repeating(leg.number, heard_to)
        again = [span for span in [*unsaid, *unfinished] if self._is_here(span[0])]
        if again and not self._is_aborted and self._repeats.may(now):
            self._again += again
            self._book.repeat(leg.number, self._count + 1)
            self._repeats.use(now)
        self._lose((span for span in unsaid if span not in self._again), now)

    def _is_here(self, position: int) -> bool:
        seq = self._buffer.seq_at(position)
        chunk = self._buffer.get(seq)
        return chunk is not None and (chunk.position <= position or seq > self._buffer.first_seq)

    def _chunks_again(self, now: float) -> range:
        """The audio of `_again`, as far as it is here; what is not, is lost."""
        start = self._shortly_before(min(start for start, _ in self._again))
        end = max(end for _, end in self._again) + self._margin
        self._again = []
        first = self._intake.wanted_again(start, end, now)
        return range(first, min(self._buffer.seq_at(end) + 1, self._cursor))

    def _lose(self, spans: Iterable[Span], now: float) -> None:
        for span in spans:
            self._intake.losses.add(*span, "provider_lost", now)

    def _rotation_due(self) -> float | None:
        leg = self.current
        if leg is None or leg.created_at is None or not leg.is_open or self._is_stopping:
            return None
        return leg.created_at + self._limits.rotate_at_latest_s
