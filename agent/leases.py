"""The leases of this worker's jobs: taken before a job is accepted, renewed while it runs.

The main process does this for all its jobs; a job that hangs or dies is noticed by its process.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from core.errors import StoreUnavailable
from core.lease_book import Claim, LeaseBook
from db import leases, sessions
from db.pool import Database

logger = logging.getLogger(__name__)

TTL_S: Final = 3.0
BEAT_S: Final = 1.0
WATCH_S: Final = 0.2
"""How often the running jobs are looked at: the time until a dead one is noticed."""
_RELEASE_S: Final = 2.0

Jobs = Callable[[], Mapping[str, str]]
"""The room of each running job, by job id."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease that was taken."""

    epoch: int
    heard_until: datetime | None
    """When the room was last heard by whoever had the lease before; None: nobody had."""
    languages: tuple[str, ...] = ()
    """That the session was created with; empty: the installation's."""


class Leases:
    """The lease table as one worker sees it. `run` in a task; the rest may be called any time."""

    def __init__(
        self, *, database: Callable[[], Database | None], on_end: Callable[[Claim], None]
    ) -> None:
        """Starts without claims.

        Args:
            database: the database, or None as long as it was never reached.
            on_end: told about each job that is over, after its lease was given back.
        """
        self._database = database
        self._on_end = on_end
        self._book = LeaseBook()
        self._leaving: asyncio.Queue[Claim] = asyncio.Queue(1000)
        self.last_beat_at = float("-inf")
        """Monotonic time of the last heartbeat that reached the table."""
        self._taking = 0

    @property
    def count(self) -> int:
        """Jobs that run, and those whose lease is being taken: they count against the limit."""
        return len(self._book.held()) + self._taking

    @property
    def rooms(self) -> set[str]:
        """Rooms that this worker's jobs serve."""
        return {claim.room for claim in self._book.held()}

    async def take(self, room: str, holder: str) -> Grant | None:
        """Takes the room's lease for a job.

        Returns:
            None when somebody else serves the room.

        Raises:
            StoreUnavailable: the table cannot be reached.
        """
        database = self._reached()
        self._taking += 1
        try:
            async with database.connection() as conn:
                heard_until = await leases.heard_until(conn, room)
                epoch = await leases.acquire(conn, room, holder, TTL_S)
                languages = await sessions.languages_of(conn, room)
            if epoch is None:
                return None
            self._book.claim(room, holder, monotonic())
        finally:
            self._taking -= 1
        return Grant(epoch, heard_until, languages)

    def adopt(self, room: str, holder: str) -> None:
        """Counts a job that was accepted without a lease; one is taken as soon as possible."""
        self._book.claim(room, holder, monotonic())

    def heard(self, holder: str, until: datetime) -> None:
        """All that was said before `until` (UTC) in the job's room is written down."""
        self._book.heard(holder, until)

    async def drop(self, holder: str) -> None:
        """The job will not run after all."""
        claim = self._book.drop(holder)
        if claim is not None:
            await self._release(claim)

    def left(self, holder: str) -> None:
        """The job's bot says that its room is over; its lease is given back at once."""
        claim = self._book.left(holder)
        if claim is not None and not self._leaving.full():
            self._leaving.put_nowait(claim)

    async def beat(self) -> None:
        """Renews every lease; takes those again that were lost while the table was away.

        Raises:
            StoreUnavailable: the table cannot be reached.
        """
        held = self._book.held()
        if held:
            database = self._reached()
            async with database.connection() as conn:
                holders = {one.room: one.holder for one in held}
                unheard_s = self._book.unheard_s(datetime.now(UTC))
                ours = await leases.renew(conn, holders, TTL_S, unheard_s)
                for claim in held:
                    if claim.room not in ours:
                        await leases.acquire(conn, claim.room, claim.holder, TTL_S)
        self.last_beat_at = monotonic()

    async def run_beats(self) -> None:
        """Renews until cancelled, in step with the clock."""
        while True:
            began = monotonic()
            try:
                await self.beat()
            except StoreUnavailable:
                logger.debug("heartbeat found the database away")
            await asyncio.sleep(max(BEAT_S - (monotonic() - began), 0.1))

    async def run_watch(self, jobs: Jobs) -> None:
        """Notices jobs that are over, gives their leases back and reports them."""
        while True:
            try:
                async with asyncio.timeout(WATCH_S):
                    over = [await self._leaving.get()]
            except TimeoutError:
                over = self._book.observe(jobs(), monotonic())
            for claim in over:
                await self._release(claim)
                self._on_end(claim)

    async def settle(self, jobs: Jobs) -> None:
        """At the worker's end: gives back and reports whatever is over by now."""
        for claim in self._book.observe(jobs(), monotonic()):
            await self._release(claim)
            self._on_end(claim)

    async def _release(self, claim: Claim) -> None:
        # Where this fails the lease runs out by itself.
        try:
            async with asyncio.timeout(_RELEASE_S), self._reached().connection() as conn:
                await leases.release(conn, claim.room, claim.holder)
        except (StoreUnavailable, TimeoutError):
            logger.warning("lease could not be given back", extra={"room": claim.room})

    def _reached(self) -> Database:
        database = self._database()
        if database is None:
            raise StoreUnavailable("the database was not reached yet")
        return database
