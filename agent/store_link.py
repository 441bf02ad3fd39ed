"""The main process's way to PostgreSQL: opened when it can be, for what all rooms share."""

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Final

from agent.flusher import Flusher
from agent.recaps import write_recaps
from agent.settings import Settings
from agent.supervise import supervise
from db.bus import Bus, PostgresBus, RedisBus
from db.pool import Database, open_database

logger = logging.getLogger(__name__)

_FLUSH_S: Final = 5.0
_QUEUE: Final = 4096


class StoreLink:
    """Holds the database, the flusher, the bus and the recaps. `run` in a task, supervised."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flusher: Flusher | None = None
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=_QUEUE)
        self._arrived = asyncio.Event()
        self.dropped = 0
        """Live messages that gave way; viewers catch up from the database."""
        self.database: Database | None = None
        """None until it was opened; whether it answers is another question."""
        self.tried = asyncio.Event()
        """The first attempt to open the database is over."""

    @property
    def is_up(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self.database is not None and self.database.down_since is None

    def publish(self, slug: str, payload: bytes) -> None:
        """Hands a live message to the bus; the oldest that wait give way to new ones."""
        self.dropped += len(self._waiting) == _QUEUE
        self._waiting.append((slug, payload))
        self._arrived.set()

    async def run(self) -> None:
        """Moves records and carries messages until cancelled.

        Raises:
            ConfigError: the database can never be used as configured.
            StoreUnavailable: an embedded one did not come up.
        """
        try:
            await self._run()
        finally:
            self.tried.set()

    async def flush(self) -> None:
        """Moves what waits, at the end; what remains is safe in the journal."""
        if self._flusher is not None and not await self._flusher.drain(_FLUSH_S):
            logger.warning("records remain in the journal for the next start")

    async def _run(self) -> None:
        settings = self._settings
        async with open_database(settings.database) as database:
            self._flusher = Flusher(
                settings.journal_path,
                database,
                batch_s=settings.batch_seconds,
                batch_size=settings.batch_size,
            )
            redis = settings.redis_url
            bus = RedisBus(redis) if redis else PostgresBus(database)
            recaps = partial(write_recaps, database, settings.model)
            self.database = database
            self.tried.set()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(supervise("flusher", self._flusher.run), name="flusher")
                    tasks.create_task(supervise("bus", bus.run), name="bus")
                    tasks.create_task(supervise("recaps", recaps), name="recaps")
                    tasks.create_task(self._relay(bus), name="relay")
            finally:
                self.database = None

    async def _relay(self, bus: Bus) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch = list(self._waiting)
            self._waiting.clear()
            await bus.publish(batch)
