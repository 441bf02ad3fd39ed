"""The leases that one worker holds for its jobs: which to renew, which to give back.

A job is named before it runs: the lease is taken when the job is offered, the job appears among
the running ones a little later, and is gone when its process is. The book only remembers; the
caller writes the lease table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

LAUNCH_S = 30.0
"""A job that was accepted but does not run after so long never will."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One job's hold on one room."""

    room: str
    holder: str
    """Id of the job."""


@dataclass(slots=True)
class _Entry:
    claim: Claim
    since: float
    running: bool = False
    left: bool = False
    heard_until: datetime | None = None


class LeaseBook:
    """Claims of one worker by job id."""

    def __init__(self, *, launch_s: float = LAUNCH_S) -> None:
        self._launch_s = launch_s
        self._entries: dict[str, _Entry] = {}

    def claim(self, room: str, holder: str, now: float) -> None:
        """The job `holder` was accepted for `room`."""
        self._entries[holder] = _Entry(Claim(room, holder), now)

    def drop(self, holder: str) -> Claim | None:
        """The job will not run after all; returns the lease to give back."""
        entry = self._entries.pop(holder, None)
        return entry.claim if entry is not None and not entry.left else None

    def left(self, holder: str) -> Claim | None:
        """The bot says that its room is over; returns the lease to give back at once.

        Its process may still be busy with the last words; it no longer counts for the room.
        """
        entry = self._entries.get(holder)
        if entry is None or entry.left:
            return None
        entry.left = True
        return entry.claim

    def heard(self, holder: str, until: datetime) -> None:
        """The bot says that all that was said before `until` is written down."""
        if (entry := self._entries.get(holder)) is not None:
            entry.heard_until = until

    def unheard_s(self, now: datetime) -> dict[str, float]:
        """Seconds before `now` until which each room was heard, where its bot said so."""
        return {
            entry.claim.room: (now - entry.heard_until).total_seconds()
            for entry in self._entries.values()
            if not entry.left and entry.heard_until is not None
        }

    def observe(self, running: Mapping[str, str], now: float) -> list[Claim]:
        """Compares with the jobs that run now; returns the claims of those that are over.

        Args:
            running: room by job id. Jobs that nobody announced are adopted.
            now: monotonic seconds.
        """
        for holder, room in running.items():
            entry = self._entries.setdefault(holder, _Entry(Claim(room, holder), now))
            entry.running = True
        over = [
            entry
            for holder, entry in self._entries.items()
            if holder not in running and (entry.running or now - entry.since > self._launch_s)
        ]
        for entry in over:
            del self._entries[entry.claim.holder]
        return [entry.claim for entry in over if not entry.left]

    def held(self) -> list[Claim]:
        """The claims whose leases are to be renewed."""
        return [entry.claim for entry in self._entries.values() if not entry.left]

    def holders(self, room: str) -> list[str]:
        """Jobs of this worker that count for `room`."""
        return [claim.holder for claim in self.held() if claim.room == room]
