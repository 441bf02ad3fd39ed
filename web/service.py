"""The running service: what it opens, the tasks that it lives by, and the order of its end."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute

from db.bus import Bus, PostgresBus, RedisBus
from db.pool import Database, open_database
from web.app import create_app
from web.callers import Callers
from web.counters import Counters
from web.deliveries import Deliveries, open_deliveries
from web.engines import FallbackEngine, InsightsEngine, RecapEngine
from web.hub import Hub
from web.limits import RateLimits
from web.rooms import open_rooms
from web.server import configured
from web.services import Services, lend
from web.settings import WebSettings
from web.tokens import Signer
from web.upkeep import Upkeep

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What the composition root plugs in; absent engines answer 503."""

    fallback: FallbackEngine | None = None
    insights: InsightsEngine | None = None
    recaps: RecapEngine | None = None
    routes: Sequence[BaseRoute] = ()
    """Further routes, such as the WebSocket of Track Egress."""
    metrics: Sequence[Collector] = ()
    """What they count, for `/metrics`."""


class Server(uvicorn.Server):
    """uvicorn that leaves signals to us, so that everything opened is closed in order."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()
        """Set once requests are answered."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    def hang_up(self) -> None:
        """Stops listening, also where serving was cancelled and not told to end."""
        for server in getattr(self, "servers", ()):
            server.close()

    @property
    def port(self) -> int:
        """The port in use, also where port 0 was asked for; only once `started`."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@dataclass(slots=True, kw_only=True)
class Service:
    """One web process. `stop` may be called from a signal handler."""

    services: Services
    server: Server
    upkeep: Upkeep
    deliveries: Deliveries

    async def run(self) -> None:
        """Serves until `stop`; then requests under way may end for eight seconds."""
        async with asyncio.TaskGroup() as group:
            with self.services.bus.subscribe(
                self.services.hub.received, self.services.hub.catch_up
            ):
                lasting = [
                    group.create_task(self.services.bus.run(), name="web:bus"),
                    group.create_task(self.services.hub.run(), name="web:hub"),
                    group.create_task(self.upkeep.run(), name="web:upkeep"),
                    group.create_task(self.deliveries.run(), name="web:deliveries"),
                ]
                try:
                    await self.server.serve()
                finally:
                    self.server.hang_up()
                    for task in lasting:
                        task.cancel()

    def stop(self) -> None:
        self.server.should_exit = True


Plug = Callable[[Database, Bus], Engines]
"""Makes the engines, which read the service's database and broadcast by its bus."""


def unplugged(_database: Database, _bus: Bus) -> Engines:
    """No engine at all."""
    return Engines()


@asynccontextmanager
async def open_service(settings: WebSettings, plug: Plug = unplugged) -> AsyncIterator[Service]:
    """Opens everything that the service stands on; it serves once `run` is called.

    Raises:
        ConfigError: the database cannot be used as configured.
        StoreUnavailable: the embedded database did not start.
    """
    signer = Signer(settings.auth_secret)
    async with open_database(settings.database) as database, open_rooms(settings) as rooms:
        counters = Counters()
        bus: Bus = RedisBus(settings.redis_url) if settings.redis_url else PostgresBus(database)
        plugged = plug(database, bus)
        for collector in plugged.metrics:
            counters.registry.register(collector)
        services = Services(
            settings=settings,
            database=database,
            rooms=rooms,
            signer=signer,
            callers=Callers(settings=settings, signer=signer),
            limits=RateLimits.of(settings.redis_url, settings.rate_limit_factor),
            bus=bus,
            hub=Hub(partial(lend, database), counters),
            counters=counters,
            fallback=plugged.fallback,
            insights=plugged.insights,
            recaps=plugged.recaps,
        )
        app = create_app(services, plugged.routes)
        async with open_deliveries(services) as deliveries:
            yield Service(
                services=services,
                server=Server(configured(app, settings)),
                upkeep=Upkeep(services),
                deliveries=deliveries,
            )
