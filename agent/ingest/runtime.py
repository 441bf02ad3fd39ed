"""The ingest as a running whole: everything it stands on, opened and closed in order."""

import asyncio
import logging
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from livekit import api
from starlette.routing import WebSocketRoute

from agent.flusher import Flusher
from agent.gladia.live import GladiaAccount
from agent.gladia.slots import SessionSlots
from agent.ingest.acceptor import Acceptor
from agent.ingest.counters import IngestCounters
from agent.ingest.decoder import find_decoder
from agent.ingest.egress import START_TIMEOUT_S, EgressControl, ServerSink
from agent.ingest.metrics import IngestMetrics
from agent.ingest.outlets import BusOutlet, HttpOutlet, Outlet
from agent.ingest.room import IngestContext
from agent.ingest.service import Ingest
from agent.ingest.settings import IngestSettings
from agent.ingest.track import TrackEndpoint
from agent.journal import Journal
from agent.lane import Ears
from agent.settings import Settings
from agent.supervise import supervise
from agent.vad import make_vad
from core.egress_key import EgressKeys
from db.bus import PostgresBus, RedisBus
from db.pool import Database, open_database

logger = logging.getLogger(__name__)

_FLUSH_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the keys in Egress addresses are made with, and what opens the broadcast route."""

    auth: str
    service: str


@dataclass(slots=True, kw_only=True)
class RunningIngest:
    """Serves until `run` is cancelled."""

    ingest: Ingest
    acceptor: Acceptor
    endpoint: TrackEndpoint
    counters: IngestCounters
    outlet: Outlet
    flusher: Flusher
    settings: IngestSettings
    ready: asyncio.Event
    """Set once the RTMP port is open."""

    @property
    def metrics(self) -> IngestMetrics:
        """For the registry of the process."""
        return IngestMetrics(
            counters=self.counters,
            acceptor=self.acceptor,
            endpoint=self.endpoint,
            outlet=self.outlet,
            flusher=self.flusher,
            rooms=lambda: len(self.ingest.rooms),
        )

    @property
    def route(self) -> WebSocketRoute:
        """For the web service's table of routes."""
        return self.endpoint.route()

    async def run(self) -> None:
        """Accepts audio and carries rooms; at the end finishes what it carries."""
        async with asyncio.TaskGroup() as tasks:
            lasting = [
                tasks.create_task(supervise("outlet", self.outlet.run), name="ingest:outlet"),
                tasks.create_task(supervise("flusher", self.flusher.run), name="ingest:flusher"),
                tasks.create_task(self.ingest.run(), name="ingest:rooms"),
            ]
            try:
                await supervise("rtmp port", self._serve_rtmp)
            finally:
                await self.ingest.shut_down()
                await self.flusher.drain(_FLUSH_S)
                for task in lasting:
                    task.cancel()

    async def _serve_rtmp(self) -> None:
        settings = self.settings
        tls = None
        if settings.rtmp_tls_cert:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(settings.rtmp_tls_cert, settings.rtmp_tls_key)
        async with self.acceptor.serving(settings.rtmp_bind, settings.rtmp_port, tls=tls) as port:
            self.ingest.port_number = port
            self.ready.set()
            logger.info("RTMP port is open", extra={"port": port})
            await asyncio.Event().wait()


@asynccontextmanager
async def open_ingest(
    *, shared: Settings, settings: IngestSettings, secrets_: Secrets
) -> AsyncIterator[RunningIngest]:
    """Opens everything; nothing is accepted before `run`.

    Args:
        shared: what the ingest shares with the worker: LiveKit, Gladia, store.
        settings: its own.
        secrets_: shared with the web service.

    Raises:
        ConfigError: the database cannot be used as configured.
        StoreUnavailable: no journal can be written, or the database did not start.
    """
    if settings.unreachable(shared.livekit_url):
        logger.warning("LiveKit cannot reach RTMP_HOST, which is a private address")
    journal = Journal(shared.journal_path)
    try:
        async with (
            open_database(shared.database) as database,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1000)) as http,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START_TIMEOUT_S)) as calls,
        ):
            client = api.LiveKitAPI(
                shared.livekit_url.replace("ws", "http", 1),
                shared.livekit_api_key,
                shared.livekit_api_secret,
                session=calls,
            )
            outlet: Outlet
            if settings.ws_server_url:
                outlet = HttpOutlet(http, settings.ws_server_url, secrets_.service)
            else:
                outlet = BusOutlet(
                    RedisBus(shared.redis_url) if shared.redis_url else PostgresBus(database)
                )
            yield _wired(shared, settings, secrets_, database, journal, http, client, outlet)
    finally:
        journal.close()


def _wired(
    shared: Settings,
    settings: IngestSettings,
    secrets_: Secrets,
    database: Database,
    journal: Journal,
    http: aiohttp.ClientSession,
    client: api.LiveKitAPI,
    outlet: Outlet,
) -> RunningIngest:
    control = EgressControl(client)
    counters = IngestCounters()
    context = IngestContext(
        ears=Ears(
            account=GladiaAccount(
                api_key=shared.gladia_api_key, base_url=shared.gladia_api_url, http=http
            ),
            slots=SessionSlots(shared.slots_dir, shared.gladia_max_sessions),
            options=shared.gladia,
            make_vad=make_vad(shared.vad_backend),
        ),
        recorder=journal,
        make_sink=lambda slug: ServerSink(control, slug),
        bus=outlet,
        decoder=find_decoder(settings.ffmpeg),
        ffmpeg=settings.ffmpeg,
        counters=counters,
        model=shared.model,
        database=shared.database,
    )
    ingest = Ingest(
        settings=settings,
        control=control,
        database=database,
        keys=EgressKeys(secrets_.auth),
        context=context,
        holder=f"ingest:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
    )
    acceptor = Acceptor(ingest)
    endpoint = TrackEndpoint(ingest)
    ingest.port, ingest.tracks = acceptor, endpoint
    return RunningIngest(
        ingest=ingest,
        acceptor=acceptor,
        endpoint=endpoint,
        counters=counters,
        outlet=outlet,
        flusher=Flusher(
            shared.journal_path,
            database,
            batch_s=shared.batch_seconds,
            batch_size=shared.batch_size,
        ),
        settings=settings,
        ready=asyncio.Event(),
    )
