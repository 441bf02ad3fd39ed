"""Which room needs a bot, and what to do about it.

Theory of operation. A room with people in it must have exactly one live transcriber; the lease
table says who that is. A room that has people and no live lease is a suspect. Its participants are
then looked at: bots of ours that are still listed are ghosts (their process is gone, the server
has not noticed yet) and are removed, then a bot is dispatched. Whoever accepts the dispatch takes
the lease first, so a lease is the sign that a dispatch was picked up; without one it is deleted
and tried again later, each time a little later. Two dispatches for one room do no harm: only one
lease exists. While the lease table cannot be read, a listed bot counts as alive unless its process
is known to be gone.

Nothing here waits or asks: views of rooms in, commands out.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from core.retry import Backoff

PICKUP_S = 3.0
"""From a dispatch to the lease of whoever accepted it; a worker needs about 0.1 s."""
BACKOFF = Backoff(first_s=1.0, max_s=30.0, jitter=0.5)
SETTLED_S = 30.0
"""A bot that lasted this long is no longer held against its room."""
LOOK_AGAIN_S = 2.0
"""A room that needs nothing although it has no lease: empty, or none of our business."""
HESITATION_S = 3.0
"""Without leases each worker is its own steward; they wait up to this long, each differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomView:
    """What the server says about one room."""

    name: str
    people: int
    """Participants who can be transcribed."""
    bots: tuple[str, ...]
    """Identities of the bots of ours that are listed, alive or not."""
    dead: tuple[str, ...] = ()
    """Bots whose process is known to be gone, listed or not; asked for where no lease can say."""
    asked: bool = True
    """False where the room's dispatches name only other agents."""


@dataclass(frozen=True, slots=True)
class RemoveGhost:
    room: str
    identity: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    room: str


@dataclass(frozen=True, slots=True)
class DeleteDispatch:
    room: str
    dispatch_id: str


Command = RemoveGhost | Dispatch | DeleteDispatch


@dataclass(slots=True)
class _Attempt:
    """What was tried for one room so far."""

    not_before: float
    dispatch_id: str | None = None
    """Of the dispatch that nobody has picked up yet."""
    failures: int = 0
    hesitated: bool = False
    served_since: float | None = None
    """When the room was first seen with a lease again."""


class Steward:
    """Decides for all rooms; see the module's theory of operation."""

    def __init__(self, *, pickup_s: float = PICKUP_S, backoff: Backoff = BACKOFF) -> None:
        self._pickup_s = pickup_s
        self._backoff = backoff
        self._attempts: dict[str, _Attempt] = {}

    def suspects(
        self, peopled: Collection[str], leased: Collection[str], now: float, chance: float
    ) -> tuple[str, ...]:
        """Rooms to look at now.

        Args:
            peopled: names of all rooms with somebody in them.
            leased: names of all rooms with a live lease.
            now: monotonic seconds.
            chance: uniform random number in 0..1.
        """
        for room, attempt in tuple(self._attempts.items()):
            if room not in peopled:
                del self._attempts[room]
            elif room in leased:
                self._served(room, attempt, now)
            elif attempt.served_since is not None:
                self.died(room, now, chance)
        return tuple(
            room
            for room in sorted(peopled)
            if room not in leased and self._attempt(room, now).not_before <= now
        )

    def died(self, room: str, now: float, chance: float) -> None:
        """The room's bot is gone: healed at once the first time, then later and later."""
        attempt = self._attempt(room, now)
        attempt.served_since = attempt.dispatch_id = None
        attempt.hesitated = True
        if attempt.failures:
            self._later(attempt, now, chance)
        else:
            attempt.failures = 1
            attempt.not_before = now

    def decide(
        self, view: RoomView, now: float, chance: float, *, leases_known: bool = True
    ) -> tuple[Command, ...]:
        """What to do about a suspect.

        Args:
            view: the room as the server lists it.
            now: monotonic seconds.
            chance: uniform random number in 0..1.
            leases_known: false while the lease table cannot be read.
        """
        attempt = self._attempt(view.name, now)
        if attempt.not_before > now:
            return ()
        is_served = not leases_known and any(bot not in view.dead for bot in view.bots)
        if view.people == 0 or not view.asked or is_served:
            attempt.not_before = now + LOOK_AGAIN_S
            return ()
        if not leases_known and not attempt.hesitated:
            attempt.hesitated = True
            attempt.not_before = now + HESITATION_S * chance
            return ()
        if attempt.dispatch_id is not None:
            return self._give_up(view.name, attempt, now, chance)
        attempt.not_before = now + self._pickup_s
        ghosts = (RemoveGhost(view.name, identity) for identity in view.bots)
        return (*ghosts, Dispatch(view.name))

    def dispatched(self, room: str, dispatch_id: str, now: float) -> None:
        """A `Dispatch` was carried out; it counts as failed when no lease follows."""
        attempt = self._attempt(room, now)
        attempt.dispatch_id = dispatch_id
        attempt.not_before = now + self._pickup_s

    def failed(self, room: str, now: float, chance: float) -> None:
        """A command for this room was refused; the room is looked at again later."""
        self._later(self._attempt(room, now), now, chance)

    def forget(self, room: str) -> None:
        """The room needs nobody any more."""
        self._attempts.pop(room, None)

    def wake(self) -> None:
        """Somebody can take rooms again (a worker came, a slot is free): wait for nothing."""
        for attempt in self._attempts.values():
            if attempt.dispatch_id is None:
                attempt.not_before = float("-inf")
            attempt.failures = 0

    def _served(self, room: str, attempt: _Attempt, now: float) -> None:
        attempt.dispatch_id = None
        if attempt.served_since is None:
            attempt.served_since = now
        elif now - attempt.served_since >= SETTLED_S:
            del self._attempts[room]

    def _give_up(
        self, room: str, attempt: _Attempt, now: float, chance: float
    ) -> tuple[Command, ...]:
        dispatch_id = attempt.dispatch_id
        assert dispatch_id is not None
        attempt.dispatch_id = None
        self._later(attempt, now, chance)
        return (DeleteDispatch(room, dispatch_id),)

    def _later(self, attempt: _Attempt, now: float, chance: float) -> None:
        attempt.failures += 1
        attempt.not_before = now + self._backoff.delay_s(attempt.failures, chance)

    def _attempt(self, room: str, now: float) -> _Attempt:
        return self._attempts.setdefault(room, _Attempt(not_before=now))


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """A bot's claim to its room; of several bots in one room the highest stays.

    The epoch comes from the lease and grows with each holder; 0 is a bot that joined while there
    was no lease table. Of two such bots the later one stays: the earlier may be a ghost.
    """

    epoch: int
    joined_at: float
    """Seconds since the Unix epoch, by the server's clock."""
    identity: str


def outranked(own: Rank, others: Iterable[Rank]) -> bool:
    """Whether a bot must leave its room to another one."""
    return any(other > own for other in others)
