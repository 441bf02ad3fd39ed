"""What handlers work with; made once by the composition root."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from core.errors import StoreUnavailable
from db.bus import Bus
from db.pool import Connection, Database
from web.callers import Callers
from web.counters import Counters
from web.engines import FallbackEngine, InsightsEngine, RecapEngine
from web.hub import Hub
from web.limits import RateLimits
from web.rooms import Rooms
from web.settings import WebSettings
from web.tokens import Signer

STORE_TIMEOUT_S = 1.6
"""Seconds until a request gives the database up, so that it is answered within two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that outlives a request."""

    settings: WebSettings
    database: Database
    rooms: Rooms
    signer: Signer
    callers: Callers
    limits: RateLimits
    bus: Bus
    hub: Hub
    counters: Counters
    fallback: FallbackEngine | None = None
    insights: InsightsEngine | None = None
    recaps: RecapEngine | None = None

    def connection(
        self, timeout_s: float = STORE_TIMEOUT_S
    ) -> AbstractAsyncContextManager[Connection]:
        """A connection for the block; see `lend`."""
        return lend(self.database, timeout_s)


@asynccontextmanager
async def lend(database: Database, timeout_s: float = STORE_TIMEOUT_S) -> AsyncIterator[Connection]:
    """A connection for the block, all of which ends within the time-out.

    Raises:
        StoreUnavailable: the database is away, frozen or out of connections.
    """
    try:
        async with asyncio.timeout(timeout_s), database.connection() as conn:
            yield conn
    except TimeoutError as exc:
        raise StoreUnavailable("the database did not answer in time") from exc
