"""Who could not be heard, and since when: each outage of ours becomes a gap of those it hit.

Two outages are known: the time between a bot that died and this one, and the time in which this
one was cut off from the room. Whoever had a microphone there was missed, whether they are still
heard afterwards or left meanwhile.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from agent.people import Person

_NOTICED_AFTER: Final = timedelta(seconds=1)
"""How much earlier than the SDK says a connection may have been lost."""
_TRACKS_BACK_S: Final = 10.0
"""How long after an outage tracks still come back because of it."""

Since = Callable[[datetime], datetime | None]
"""From when on somebody who joined at a time was not heard by the bot before, or None."""
Report = Callable[[Person, datetime], None]
"""Told who was not heard, from when until now."""


class Missed:
    """The outages of one bot. Its times are those of the caller's monotonic clock."""

    def __init__(self, since: Since, report: Report, heard_before: Iterable[Person] = ()) -> None:
        """Notes nothing yet.

        Args:
            since: what the bot before this one missed of somebody.
            report: told of each gap, once.
            heard_before: whom the bot before this one listened to when it was last heard of.
        """
        self._since = since
        self._report = report
        self._heard_before = {person.identity: person for person in heard_before}
        self._returns_until = float("inf")
        """Tracks that come before then come because an outage is over."""

    def begin(self, present: Iterable[str], now: float) -> None:
        """The room is entered; `present` are the identities in it."""
        here = set(present)
        for person in [*self._heard_before.values()]:
            if person.identity not in here:
                del self._heard_before[person.identity]
                self._tell(person, self._since(person.joined_at))
        self._returns_until = now + _TRACKS_BACK_S

    def arrived(self, person: Person) -> None:
        """Somebody is seen for the first time."""
        before = self._heard_before.pop(person.identity, person)  # may have reconnected meanwhile
        person.missed_since = self._since(min(person.joined_at, before.joined_at))

    def cut_off(self, people: Iterable[Person]) -> None:
        """Our connection is gone; whether audio is lost shows when it is back."""
        self._returns_until = float("inf")
        for person in people:
            if person.has_microphone and person.missed_since is None:
                person.missed_since = datetime.now(UTC) - _NOTICED_AFTER

    def back(self, people: Iterable[Person], now: float) -> None:
        """Our connection is back: who is still listened to was heard all the time."""
        self._returns_until = now + _TRACKS_BACK_S
        for person in people:
            if person.tracks:
                person.missed_since = None

    def heard(self, person: Person, now: float) -> None:
        """A track of theirs comes; soon after an outage it was there before, unheard."""
        since, person.missed_since = person.missed_since, None
        if not person.tracks and now < self._returns_until:
            self._tell(person, since)

    def is_awaited(self, person: Person, now: float) -> bool:
        """Whether their tracks are still to come back."""
        missed = person.has_microphone and person.missed_since is not None
        return missed and now < self._returns_until

    def left(self, person: Person) -> None:
        """They go; with a microphone that nobody came to hear again."""
        since, person.missed_since = person.missed_since, None
        if person.has_microphone:
            self._tell(person, since)

    def _tell(self, person: Person, since: datetime | None) -> None:
        if since is not None:
            self._report(person, since)
