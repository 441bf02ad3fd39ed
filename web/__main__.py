"""`python -m web`: reads the environment, wires the service, runs it until SIGTERM.

Composition root: the only place where the web service and the ingest meet.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from livekit.api import EgressInfo, EgressStatus

from agent.ingest.doors import Status
from agent.ingest.runtime import RunningIngest, Secrets, open_ingest
from agent.ingest.settings import IngestSettings
from agent.insights import NewInsight
from agent.language_model import LanguageModel, ModelSettings, open_language_model
from agent.on_demand import OnDemandInsights
from agent.recaps import RecapWriter
from agent.settings import Settings
from core.env import Env
from core.errors import ConfigError, StoreUnavailable
from core.ids import Identity, Slug
from core.wire import insights_message
from db.bus import Bus
from db.pool import Database
from web.alone import lone_server
from web.engines import FallbackMode, FallbackState, SpeakerReport
from web.service import Engines, Plug, open_service
from web.settings import WebSettings

log = logging.getLogger("web")


class Fallback:
    """The ingest as the web service knows it."""

    def __init__(self, running: RunningIngest) -> None:
        self._ingest = running.ingest

    async def start(self, slug: Slug, mode: FallbackMode) -> FallbackState:
        return _state(await self._ingest.start(slug, mode))

    async def stop(self, slug: Slug) -> FallbackState:
        return _state(await self._ingest.stop(slug))

    def active_speakers(self, slug: Slug, reporter: Identity, report: SpeakerReport) -> None:
        """Takes what the reporter says about itself; nobody speaks for somebody else."""
        self._ingest.active_speaker(slug, reporter, speaking=reporter in report.speakers)

    def egress_changed(self, info: EgressInfo) -> None:
        """Takes LiveKit's word that an egress is over; everything else it lists itself."""
        if info.status not in _RUNNING:
            self._ingest.egress_over(Slug(info.room_name), info.egress_id)


_RUNNING = frozenset({EgressStatus.EGRESS_STARTING, EgressStatus.EGRESS_ACTIVE})


def _state(status: Status) -> FallbackState:
    return FallbackState(state=status.state, source=status.source, egress_ids=status.egress_ids)


@asynccontextmanager
async def _ingest(
    settings: WebSettings, environ: Mapping[str, str]
) -> AsyncIterator[RunningIngest | None]:
    """The ingest, where this process runs one; it serves for the block."""
    wanted = settings.server_mode == "rtmp" or settings.transcription_configured
    if settings.server_mode == "ws" or not wanted:
        yield None
        return
    own = IngestSettings.from_env(environ)
    if settings.broadcast_mode == "http" and not own.ws_server_url:
        raise ConfigError(["WS_SERVER_URL is not set: REALTIME_BROADCAST_MODE=http posts there"])
    if settings.broadcast_mode == "direct":
        own = own.without_web_server()
    shared = Settings.from_env(environ, "connect")
    secrets = Secrets(auth=settings.auth_secret, service=settings.service_secret)
    async with (
        open_ingest(shared=shared, settings=own, secrets_=secrets) as running,
        asyncio.TaskGroup() as tasks,
    ):
        serving = tasks.create_task(running.run(), name="ingest")
        try:
            yield running
        finally:
            serving.cancel()


@asynccontextmanager
async def _model(environ: Mapping[str, str]) -> AsyncIterator[tuple[LanguageModel, ModelSettings]]:
    """The language model account, also where it is not configured: nothing asks it then."""
    env = Env(environ)
    settings = ModelSettings.from_env(env)
    env.check()
    async with open_language_model(settings) as model:
        yield model, settings


def _engines(ingest: RunningIngest | None, model: LanguageModel, settings: ModelSettings) -> Plug:
    """What this process can do beyond HTTP, made once its database and bus are there."""

    def plug(database: Database, bus: Bus) -> Engines:
        async def broadcast(slug: Slug, new: NewInsight) -> None:
            await bus.publish([(slug, insights_message(slug, new.insight, new.at))])

        insights = OnDemandInsights(
            database=database, model=model, settings=settings, on_insight=broadcast
        )
        return Engines(
            fallback=Fallback(ingest) if ingest else None,
            insights=insights if settings.enabled else None,
            recaps=RecapWriter(database=database, model=model) if settings.enabled else None,
            routes=[ingest.route] if ingest else [],
            metrics=[ingest.metrics] if ingest else [],
        )

    return plug


async def serve(settings: WebSettings, environ: Mapping[str, str]) -> None:
    """Runs the service until SIGTERM or SIGINT."""
    async with _ingest(settings, environ) as ingest, _model(environ) as (model, model_settings):
        if settings.server_mode == "rtmp":
            assert ingest is not None
            server = lone_server(settings, [ingest.route], [ingest.metrics])
            _on_signals(lambda: setattr(server, "should_exit", True))
            log.info("ingest starts", extra={"host": settings.host, "port": settings.port})
            await server.serve()
            return
        plug = _engines(ingest, model, model_settings)
        async with open_service(settings, plug) as service:
            _on_signals(service.stop)
            log.info("web service starts", extra={"host": settings.host, "port": settings.port})
            if settings.auth_mode == "open":
                log.warning("open mode: everybody who reaches this address may do everything")
            await service.run()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def main() -> int:
    """Returns the exit code: 2 for a configuration that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    environ = os.environ  # noqa: TID251 - composition root
    try:
        settings = WebSettings.from_env(environ, pid=os.getpid())
        asyncio.run(serve(settings, environ))
    except ConfigError as exc:
        sys.stderr.write("".join(f"config: {problem}\n" for problem in exc.problems))
        return 2
    except StoreUnavailable as exc:
        sys.stderr.write(f"database: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
