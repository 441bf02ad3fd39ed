"""Puts a bot into each room that should have one: reads rooms and leases, runs core.steward.

Every worker has a steward; the one whose database session holds the advisory lock looks at all
rooms. The others only heal rooms whose job they saw die. While the database is away each looks at
all rooms, slowly, and trusts what the room lists, but for bots that died on its host.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Final, assert_never

from agent.heard import Marks
from agent.leases import TTL_S, Leases
from agent.livekit_rooms import LiveKitRooms
from core import steward as core
from core.errors import ProviderError, StoreUnavailable
from core.lease_book import Claim
from core.steward import DeleteDispatch, Dispatch, RemoveGhost
from db import leases
from db.pool import Connection, Database

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
ALONE_TICK_S: Final = 3.0
STAND_BY_S: Final = 0.5
_SLOW_S: Final = 0.5
"""A database slower than this may have kept others from renewing their leases."""
_FORGET_AFTER_S: Final = 7 * 86_400.0


class Steward:
    """One worker's steward. `run` in a task, supervised."""

    def __init__(
        self,
        *,
        rooms: LiveKitRooms,
        own: Leases,
        database: Callable[[], Database | None],
        marks: Marks,
        count: Callable[[str], None],
    ) -> None:
        """Starts idle.

        Args:
            rooms: the LiveKit server.
            own: this worker's leases.
            database: the database, or None as long as it was never reached.
            marks: what the bots of this host left.
            count: counts an action by name.
        """
        self._rooms = rooms
        self._own = own
        self._database = database
        self._marks = marks
        self._count = count
        self._core = core.Steward()
        self._woken = asyncio.Event()
        self._dead: asyncio.Queue[Claim] = asyncio.Queue(1000)
        self._calm_since = float("-inf")
        self.leads = False
        """Whether this steward looks at all rooms now."""

    def wake(self) -> None:
        """A worker came or has room again: look now."""
        self._core.wake()
        self._woken.set()

    def job_ended(self, claim: Claim) -> None:
        """A job of this worker is over; its room is looked at, now."""
        if not self._dead.full():
            self._dead.put_nowait(claim)

    async def run(self) -> None:
        """Leads as soon as nobody else does, until cancelled."""
        while True:
            try:
                await self._stand_by()
            except StoreUnavailable:
                self._disturbed()
                await self._tick_alone()
                await self._pause(ALONE_TICK_S)
            finally:
                self.leads = False

    async def run_healing(self) -> None:
        """Heals the rooms of own jobs that died, until cancelled."""
        while True:
            claim = await self._dead.get()
            try:
                await self._heal(claim)
            except ProviderError as exc:
                logger.warning("room could not be healed", extra=_why(claim.room, exc))
            finally:
                self._dead.task_done()

    async def settle(self) -> None:
        """Waits until the room of every job that ended was looked at."""
        await self._dead.join()

    async def _stand_by(self) -> None:
        database = self._database()
        if database is None:
            raise StoreUnavailable("the database was not reached yet")
        async with database.direct() as conn:
            while not await leases.lead(conn):
                await self._pause(STAND_BY_S)
            self.leads = True
            logger.info("this worker is the steward of all rooms")
            await leases.forget(conn, _FORGET_AFTER_S)
            while True:
                await self._tick(conn)
                await self._pause(TICK_S)

    async def _tick(self, conn: Connection) -> None:
        began = monotonic()
        leased = await _leased(conn)
        if monotonic() - began > _SLOW_S:
            self._disturbed()
        if monotonic() - self._calm_since < TTL_S + TICK_S:
            return  # leases may have run out only because nobody could renew them
        try:
            await self._look(await self._rooms.peopled(), leased, leases_known=True)
        except ProviderError as exc:
            logger.warning("steward cannot see the rooms", extra={"reason": str(exc)})

    async def _tick_alone(self) -> None:
        try:
            await self._look(await self._rooms.peopled(), self._own.rooms, leases_known=False)
        except ProviderError as exc:
            logger.warning("steward cannot see the rooms", extra={"reason": str(exc)})

    async def _look(self, peopled: set[str], leased: set[str], *, leases_known: bool) -> None:
        for room in self._core.suspects(peopled, leased, monotonic(), _chance()):
            await self._tend(room, leases_known=leases_known)

    async def _tend(self, room: str, *, leases_known: bool) -> None:
        view = await self._rooms.view(room)
        if view is None:
            return
        if not leases_known and (dead := self._marks.dead_bot(room)) is not None:
            view = replace(view, dead=(dead,))
        commands = self._core.decide(view, monotonic(), _chance(), leases_known=leases_known)
        try:
            for command in commands:
                await self._carry_out(command)
        except ProviderError as exc:
            self._core.failed(room, monotonic(), _chance())
            logger.warning("steward was refused", extra=_why(room, exc))

    async def _heal(self, claim: Claim) -> None:
        self._core.died(claim.room, monotonic(), _chance())
        view = await self._rooms.view(claim.room)
        if view is None or not view.people:
            self._core.forget(claim.room)
            self._marks.forget(claim.room)
            return
        ghost = f"agent-{claim.holder}"
        if ghost in view.bots:
            await self._carry_out(RemoveGhost(claim.room, ghost))
        served = await self._served(claim.room)
        if served is not True:
            await self._tend(claim.room, leases_known=served is not None)

    async def _served(self, room: str) -> bool | None:
        """Whether somebody has the room's lease; None where the table cannot be read."""
        database = self._database()
        if database is None:
            return None
        try:
            async with database.connection() as conn:
                return room in await _leased(conn)
        except StoreUnavailable:
            return None

    async def _carry_out(self, command: core.Command) -> None:
        match command:
            case Dispatch(room):
                dispatch_id = await self._rooms.dispatch(room)
                self._core.dispatched(room, dispatch_id, monotonic())
                logger.info("room needs a bot, dispatched", extra={"room": room})
                self._count("dispatch")
            case RemoveGhost(room, identity):
                logger.info("dead bot is removed", extra={"room": room, "bot": identity})
                await self._rooms.remove(room, identity)
                self._count("remove_ghost")
            case DeleteDispatch(room, dispatch_id):
                logger.warning("nobody took the dispatch, trying later", extra={"room": room})
                await self._rooms.delete_dispatch(room, dispatch_id)
                self._count("give_up")
            case _:
                assert_never(command)

    def _disturbed(self) -> None:
        self._calm_since = monotonic()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


async def _leased(conn: Connection) -> set[str]:
    """Rooms with a live bot; a fallback only counts until a bot can come."""
    return {one.room for one in await leases.leases(conn) if one.is_live and one.kind == "agent"}


def _chance() -> float:
    return random.random()  # noqa: S311 - jitter


def _why(room: str, error: Exception) -> dict[str, str]:
    return {"room": room, "reason": str(error)}
