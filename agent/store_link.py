"""The main process's way to PostgreSQL: opened when it can be, for what all rooms share."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import aiohttp

from agent.flusher import Flusher
from agent.ingest.outlets import HttpOutlet
from agent.live_way import LiveWay
from agent.recaps import Count, write_recaps
from agent.settings import Settings
from agent.supervise import supervise
from core.wire import WAKE
from db.bus import PostgresBus, RedisBus
from db.pool import Database, open_database

logger = logging.getLogger(__name__)

_FLUSH_S: Final = 5.0


class StoreLink:
    """Holds the database, the flusher, the bus and the recaps. `run` in a task, supervised."""

    def __init__(self, settings: Settings, *, on_wake: Callable[[], None], count: Count) -> None:
        """Starts without a database.

        Args:
            settings: the worker's.
            on_wake: called when a web service heard of something that a steward should look at.
            count: adds to a counter of agent.metrics.
        """
        self._settings = settings
        self._on_wake = on_wake
        self._count = count
        self._flusher: Flusher | None = None
        self.way = LiveWay(on_detour=lambda count: self._count("live_detours", count))
        self.database: Database | None = None
        """None until it was opened; whether it answers is another question."""
        self.tried = asyncio.Event()
        """The first attempt to open the database is over."""

    @property
    def is_up(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self.database is not None and self.database.down_since is None

    @property
    def records_waiting(self) -> int:
        """Records of this host on their way to PostgreSQL, as far as this process moves them."""
        return self._flusher.waiting if self._flusher is not None else 0

    def publish(self, slug: str, payload: bytes) -> None:
        """Hands on a live message; never waits."""
        self.way.publish(slug, payload)

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

    async def run_live(self) -> None:
        """Carries live messages until cancelled, also while no database was opened yet."""
        settings = self._settings
        if not settings.ws_server_url:
            await self.way.run()
            return
        async with aiohttp.ClientSession() as http:
            await self.way.run(HttpOutlet(http, settings.ws_server_url, settings.service_secret))

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
            recaps = partial(
                write_recaps, database, settings.model, self._count, settings.recap_after_s
            )
            self.database = database
            self.tried.set()
            try:
                with bus.subscribe(self._heard, self._on_wake):
                    self.way.bus = bus
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(supervise("flusher", self._flusher.run), name="flusher")
                        tasks.create_task(supervise("bus", bus.run), name="bus")
                        tasks.create_task(supervise("recaps", recaps), name="recaps")
            finally:
                self.way.bus = None
                self.database = None

    def _heard(self, _slug: str, message: bytes) -> None:
        if message == WAKE:
            self._on_wake()
