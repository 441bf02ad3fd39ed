"""Whether a room needs LiveKit Egress as its ear, of which kind, and what to do when it fails.

Theory of operation. A room with people and no live bot for `after_s` wants an egress; so does one
for which somebody asked. A bot ends it at once. There is one mixed (`composite`) egress for a
room, or one for each audio track (`tracks`). An egress that brings no sound for `silent_s` has
failed whatever LiveKit says about it: it is stopped and started again. After two failures in a
row the other kind has its turn. A start that timed out may have happened all the same: nothing is
started before LiveKit's own list was read, and what is found there is taken over. An egress that
runs in a room without a bot before we started any is one of a process before us, and goes on.

Nothing here waits or asks: facts and time in, commands out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from core.retry import Backoff

Kind: TypeAlias = Literal["composite", "tracks"]
Mode: TypeAlias = Literal["auto", "composite", "tracks"]
FaultReason: TypeAlias = Literal["unauthorized", "unavailable", "refused", "ended", "silent"]

MAX_TRACKS = 50
"""Track egresses for one room; each costs the egress service a process."""
SWITCH_AFTER = 2
UNLISTED_S = 5.0
"""A started egress may be missing from LiveKit's list for so long."""
STOP_AGAIN_S = 10.0
UNAVAILABLE = Backoff(first_s=30.0, max_s=600.0)
RESTART = Backoff(first_s=0.5, max_s=30.0, factor=4.0)


@dataclass(frozen=True, slots=True)
class Egress:
    """An egress of ours that LiveKit lists as running."""

    id: str
    track_sid: str | None
    """None: the mix of the whole room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFacts:
    """What is known about one room now."""

    people: int
    bot: bool
    """A live bot of ours transcribes it."""
    tracks: frozenset[str] = frozenset()
    """SIDs of the published audio tracks."""
    egresses: tuple[Egress, ...] | None = None
    """None: LiveKit's list could not be read, or nobody looked."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start an egress: of one track, or of the mix."""

    track_sid: str | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop an egress; gone is fine."""

    egress_id: str


Command: TypeAlias = Start | Stop


@dataclass(slots=True)
class _Run:
    """One egress from the wish to start it to its end."""

    since: float
    id: str | None = None
    heard_at: float | None = None
    """Monotonic seconds of its last sound."""

    def is_silent(self, now: float, limit_s: float) -> bool:
        return self.id is not None and now - (self.heard_at or self.since) >= limit_s


@dataclass(slots=True)
class Failover:
    """One room's fallback; see the module's theory of operation."""

    after_s: float = 20.0
    silent_s: float = 10.0
    reason: FaultReason | None = None
    """Why there is no egress although one is wanted."""
    kind: Kind = "composite"
    bot_gone_at: float | None = None
    """Monotonic seconds since when people are alone; None while a bot is there, or nobody is."""
    wanted: bool = False
    _asked: Mode | None = None
    _released: bool = False
    """Somebody said that it is not wanted."""
    _runs: dict[str | None, _Run] = field(default_factory=dict)
    _stopped: dict[str, float] = field(default_factory=dict)
    _failures: int = 0
    _refusals: int = 0
    _not_before: float = float("-inf")

    @property
    def egress_ids(self) -> tuple[str, ...]:
        return tuple(run.id for run in self._runs.values() if run.id is not None)

    @property
    def is_busy(self) -> bool:
        """Whether an egress runs, starts, or was stopped and may still be listed."""
        return bool(self._runs or self._stopped)

    @property
    def is_heard(self) -> bool:
        """Whether any egress brought sound since it was started."""
        return any(run.heard_at is not None for run in self._runs.values())

    def ask(self, mode: Mode) -> None:
        """Somebody wants the egress now; takes back what a missing permission had blocked."""
        self._released = False
        if self._asked != mode:
            self._asked = mode
            if mode != "auto":
                self.kind = mode
        if self.reason is not None:
            self.reason = None
            self._not_before = float("-inf")

    def release(self, now: float) -> None:
        """Nobody wants it any more; the automatic one may come after the usual wait."""
        self._asked = None
        self._released = True
        self.bot_gone_at = now if self.bot_gone_at is not None else None

    def observe(self, facts: RoomFacts, now: float) -> list[Command]:
        """Compares the room with what it needs; call it about once a second."""
        self._judge(facts, now)
        if facts.egresses is not None:
            self._compare(facts.egresses, now)
        if not self.wanted:
            return list(self._stops(facts, now))
        commands = list(self._watch(now))
        commands += self._stops(facts, now)
        if facts.egresses is None or self.reason == "unauthorized" or now < self._not_before:
            return commands
        for key in self._missing(facts):
            self._runs[key] = _Run(now)
            commands.append(Start(key))
        return commands

    def started(self, track_sid: str | None, egress_id: str, now: float) -> list[Command]:
        """A `Start` was carried out; it may have become superfluous meanwhile."""
        run = self._runs.get(track_sid)
        if run is None or run.id not in {None, egress_id}:
            self._stopped[egress_id] = now
            return [Stop(egress_id)]
        run.id, run.since = egress_id, now
        self.reason = None
        return []

    def failed(self, track_sid: str | None, reason: FaultReason, now: float, chance: float) -> None:
        """A `Start` was refused, or nobody answered."""
        self._runs.pop(track_sid, None)
        self.reason = reason
        if reason == "unavailable":
            self._refusals += 1
            self._not_before = now + UNAVAILABLE.delay_s(self._refusals, chance)
        elif reason != "unauthorized":
            self._fault(reason, now)

    def ended(self, egress_id: str, now: float) -> None:
        """LiveKit says that an egress of ours is over, and we did not stop it."""
        for key, run in list(self._runs.items()):
            if run.id == egress_id:
                del self._runs[key]
                self._fault("ended", now)

    def heard(self, track_sid: str | None, now: float) -> None:
        """Sound came in, silence included."""
        run = self._runs.get(track_sid)
        if run is not None:
            run.heard_at = now
            self._failures = self._refusals = 0
            self.reason = None

    def _judge(self, facts: RoomFacts, now: float) -> None:
        if facts.bot:
            self._asked = None
        elif self._asked is None and not self.wanted:
            self._inherit(facts)
        if facts.bot or facts.people == 0:
            self.bot_gone_at = None
        elif self.bot_gone_at is None:
            self.bot_gone_at = now
        alone_s = now - self.bot_gone_at if self.bot_gone_at is not None else 0.0
        due = self._asked is not None or alone_s >= self.after_s
        self.wanted = self.bot_gone_at is not None and due
        if not self.wanted:
            self._failures = 0

    def _inherit(self, facts: RoomFacts) -> None:
        """An egress that nobody here started is our predecessor's, and is still needed."""
        new = [one for one in facts.egresses or () if one.id not in self._stopped]
        if new and facts.people and not self._runs and not self._released:
            self._asked = "auto"
            self.kind = "composite" if new[0].track_sid is None else "tracks"

    def _compare(self, listed: tuple[Egress, ...], now: float) -> None:
        """Takes over what runs already, gives up what is gone."""
        ids = {egress.id for egress in listed}
        for key, run in list(self._runs.items()):
            if run.id is not None and run.id not in ids and now - run.since >= UNLISTED_S:
                del self._runs[key]
                self._fault("ended", now)
        for egress in listed:
            fits = (egress.track_sid is None) == (self.kind == "composite")
            known = egress.track_sid in self._runs or egress.id in self._stopped
            if self.wanted and fits and not known:
                self._runs[egress.track_sid] = _Run(now, egress.id)
        self._stopped = {id_: at for id_, at in self._stopped.items() if id_ in ids}

    def _watch(self, now: float) -> Iterator[Command]:
        for key, run in list(self._runs.items()):
            if run.id is not None and run.is_silent(now, self.silent_s):
                del self._runs[key]
                self._fault("silent", now)
                self._stopped[run.id] = now
                yield Stop(run.id)

    def _stops(self, facts: RoomFacts, now: float) -> Iterator[Command]:
        """Whatever runs and should not; said again when it did not help."""
        for key, run in list(self._runs.items()):
            if not (self.wanted and self._fits(key, facts)):
                del self._runs[key]
                if run.id is not None:
                    self._stopped[run.id] = now
                    yield Stop(run.id)
        kept = set(self.egress_ids)
        for egress in facts.egresses or ():
            last = self._stopped.get(egress.id)
            if egress.id not in kept and (last is None or now - last >= STOP_AGAIN_S):
                self._stopped[egress.id] = now
                yield Stop(egress.id)

    def _fits(self, key: str | None, facts: RoomFacts) -> bool:
        return key is None if self.kind == "composite" else key in facts.tracks

    def _missing(self, facts: RoomFacts) -> list[str | None]:
        if self.kind == "composite":
            return [] if None in self._runs else [None]
        free = MAX_TRACKS - len(self._runs)
        missing: list[str | None] = [sid for sid in facts.tracks if sid not in self._runs]
        return sorted(missing, key=str)[:free]

    def _fault(self, reason: FaultReason, now: float) -> None:
        self.reason = reason
        self._failures += 1
        self._not_before = now + RESTART.delay_s(self._failures, 0.0)
        if self._failures % SWITCH_AFTER == 0 and self._asked in {None, "auto"}:
            self.kind = "tracks" if self.kind == "composite" else "composite"
