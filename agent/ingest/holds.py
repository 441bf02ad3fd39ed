"""What the ingest asks of the store: which rooms are ours, and whether a session is over."""

import logging
from collections.abc import Collection
from datetime import datetime
from typing import Final

from core.errors import NotFound, StoreError
from core.ids import Slug
from db import leases, sessions
from db.leases import Lease, LeaseKind
from db.pool import Database

logger = logging.getLogger(__name__)

TTL_S: Final = 3.0


class Holds:
    """The lease table under one holder's name. Never raises: the store may be away."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database = database
        self.holder = holder

    async def take(self, slug: Slug, kind: LeaseKind) -> bool | None:
        """Whether the room is ours now; None while nobody can say."""
        try:
            async with self._database.connection() as conn:
                return await leases.acquire(conn, slug, self.holder, TTL_S, kind) is not None
        except StoreError:
            return None

    async def heard_until(self, slug: Slug) -> datetime | None:
        """When whoever had the room last heard it; ask before `take`. None: nobody can say."""
        try:
            async with self._database.connection() as conn:
                return await leases.heard_until(conn, slug)
        except StoreError:
            return None

    async def renew(
        self, rooms: Collection[Slug], deaf: Collection[Slug]
    ) -> dict[str, Lease] | None:
        """Prolongs our leases; returns the live ones of all rooms, None while nobody can say.

        Args:
            rooms: that we hear.
            deaf: that are ours and send nothing at present.
        """
        try:
            async with self._database.connection() as conn:
                held: dict[str, str] = dict.fromkeys([*rooms, *deaf], self.holder)
                if held:
                    await leases.renew(conn, held, TTL_S, dict.fromkeys(rooms, 0.0))
                return {one.room: one for one in await leases.leases(conn) if one.is_live}
        except StoreError:
            return None

    async def give_back(self, slug: Slug) -> None:
        """Ours no more; where this fails the lease runs out by itself."""
        try:
            async with self._database.connection() as conn:
                await leases.release(conn, slug, self.holder)
        except StoreError:
            logger.warning("lease could not be given back", extra={"room": slug})

    async def has_ended(self, slug: Slug) -> bool:
        """Whether the session is over; while nobody can say, it is not."""
        try:
            async with self._database.connection() as conn:
                return (await sessions.find(conn, slug)).status == "ended"
        except (NotFound, StoreError):
            return False
