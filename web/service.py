"""The running service: what it opens, the tasks that it lives by, and the order of its end."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.routing import BaseRoute

from db.pool import open_database
from web.app import create_app
from web.callers import Callers
from web.engines import FallbackEngine, InsightsEngine
from web.limits import RateLimits
from web.rooms import open_rooms
from web.server import configured
from web.services import Services
from web.settings import WebSettings
from web.tokens import Signer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What the composition root plugs in; absent engines answer 503."""

    fallback: FallbackEngine | None = None
    insights: InsightsEngine | None = None
    routes: Sequence[BaseRoute] = ()
    """Further routes, such as the WebSocket of Track Egress."""


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

    async def run(self) -> None:
        """Serves until `stop`; then requests under way may end for eight seconds."""
        await self.server.serve()

    def stop(self) -> None:
        self.server.should_exit = True

    async def _watch_start(self) -> None:
        while not self.server.started:
            await asyncio.sleep(0.01)
        self.started.set()


@asynccontextmanager
async def open_service(
    settings: WebSettings, engines: Engines | None = None
) -> AsyncIterator[Service]:
    """Opens everything that the service stands on; it serves once `run` is called.

    Raises:
        ConfigError: the database cannot be used as configured.
        StoreUnavailable: the embedded database did not start.
    """
    plugged = engines or Engines()
    signer = Signer(settings.auth_secret)
    async with open_database(settings.database) as database, open_rooms(settings) as rooms:
        services = Services(
            settings=settings,
            database=database,
            rooms=rooms,
            signer=signer,
            callers=Callers(settings=settings, signer=signer),
            limits=RateLimits.of(settings.redis_url, settings.rate_limit_factor),
            fallback=plugged.fallback,
            insights=plugged.insights,
        )
        app = create_app(services, plugged.routes)
        yield Service(services=services, server=Server(configured(app, settings)))
