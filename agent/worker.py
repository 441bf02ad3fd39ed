"""The worker's main process: takes jobs from LiveKit, and runs what all rooms share.

Composition root. Rooms run in processes of their own (`agent.job`); here run the lease heartbeat,
the steward, the journal's flusher, the bus and the metrics, under one TaskGroup.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp
from livekit import api
from livekit.agents import AgentServer, JobExecutorType, JobRequest, WorkerPermissions

from agent import job
from agent.bus_relay import RelayReceiver, listening
from agent.gladia import open_sessions
from agent.heard import Marks
from agent.leases import WATCH_S, Grant, Leases
from agent.livekit_rooms import TIMEOUT, LiveKitRooms
from agent.metrics import Metrics, serving
from agent.settings import Settings
from agent.steward import Steward
from agent.store_link import StoreLink
from agent.subscriptions import APP, APP_ATTRIBUTE, EPOCH_ATTRIBUTE, HEARD_ATTRIBUTE
from agent.supervise import supervise
from agent.vad import make_vad
from core.errors import ConfigError, ProviderError, StoreError
from core.gladia.languages import LANGUAGES_ATTRIBUTE, languages_text
from core.lease_book import Claim

logger = logging.getLogger(__name__)

OK: Final = 0
FAILED: Final = 1
MISCONFIGURED: Final = 2

FULL_LOAD: Final = 0.69
"""LiveKit refuses workers from 0.7 on (`agents.target_load`), whatever they say themselves."""
_STORE_FIRST_S: Final = 10.0
"""How long the first job waits for the database; without one rooms are taken on trust."""
_TAKE_LEASE_S: Final = 2.0
_HAND_OVER_S: Final = 3.0
_FINISH_S: Final = 25.0
_FOR_EVER: Final = 1_000_000


Part = Callable[[], Awaitable[None]]


class Worker:
    """One worker: its server, and what its rooms share."""

    def __init__(self, settings: Settings, client: api.LiveKitAPI, relay: Path) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._running = False
        """The server was told to run; before, it cannot be told to stop."""
        self._started = asyncio.Event()
        self._registered = asyncio.Event()
        self._exit_code = OK
        self.metrics = Metrics()
        self.store = StoreLink(settings, on_wake=self._woken, count=self.metrics.add)
        self.rooms = LiveKitRooms(client, settings.agent_name)
        self.leases = Leases(database=lambda: self.store.database, on_end=self._job_ended)
        self.steward = Steward(
            rooms=self.rooms,
            own=self.leases,
            database=lambda: self.store.database,
            marks=Marks(settings.heard_dir),
            count=lambda action: self.metrics.add("steward_actions", label=action),
        )
        self.relay = RelayReceiver(
            on_message=self.store.publish,
            on_left=self.leases.left,
            on_heard=self.leases.heard,
            on_metrics=self.metrics.merge,
        )
        self.server = make_server(settings, relay, self._request)
        self.server.on("worker_started", self._started.set)
        self.server.on("worker_registered", self._on_registered)
        self._describe()

    def stop(self, exit_code: int = OK) -> None:
        """Begins the end: hand over the rooms, write down what waits, return from `run`."""
        self._exit_code = max(self._exit_code, exit_code)
        self._stopping.set()

    async def run(self, *, dev: bool, room: str | None = None) -> int:
        """Works until `stop`; returns the exit code.

        Args:
            dev: development defaults of the framework.
            room: serve this one without registering; None: take what LiveKit dispatches.
        """
        parts = self._shared_parts()
        if room is None:
            parts |= self._registered_parts()
        else:
            parts["room"] = partial(self._occupy, room)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(supervise(name, part, on_failure=self._failed(name)), name=name)
                for name, part in parts.items()
            ]
            serving = self._serve(dev=dev, registers=room is None)
            running.append(tasks.create_task(serving, name="server"))
            await self._stopping.wait()
            await self._hand_over()
            for task in running:
                task.cancel()
        return self._exit_code

    # Parts

    def _shared_parts(self) -> dict[str, Part]:
        return {
            "store": self._run_store,
            "live": self.store.run_live,
            "heartbeat": self.leases.run_beats,
            "jobs": partial(self.leases.run_watch, self._jobs),
            "open sessions": partial(open_sessions.watch, self._settings.slots_dir),
        }

    def _registered_parts(self) -> dict[str, Part]:
        return {
            "steward": self._run_steward,
            "healing": self.steward.run_healing,
            "registration": self._watch_registration,
        }

    async def _run_steward(self) -> None:
        """A dispatch that is made before anybody can take it is lost."""
        await self._registered.wait()
        await self.steward.run()

    async def _watch_registration(self) -> None:
        """Fails the worker when LiveKit does not know it in time."""
        limit_s = self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._registered.wait()
        except TimeoutError:
            _say("could not register with LiveKit", waited_s=limit_s)
            self.stop(FAILED)

    async def _occupy(self, room: str) -> None:
        """Runs one job in `room` and ends the worker with it."""
        await self._started.wait()
        try:
            if await self.rooms.bots(room):
                _say("room has a bot already", room=room)
                self.stop(FAILED)
                return
            await self._launch(room)
        except ProviderError as exc:
            _say("room cannot be joined", room=room, reason=str(exc))
            self.stop(FAILED)
            return
        while self._jobs():  # noqa: ASYNC110 - the framework has no event for it
            await asyncio.sleep(WATCH_S)
        self.stop()

    async def _launch(self, room: str) -> None:
        settings = self._settings
        identity = f"agent-{token_hex(6)}"
        grants = api.VideoGrants(
            room_join=True, room=room, agent=True, can_publish=False, hidden=settings.hidden
        )
        token = (
            api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret)
            .with_identity(identity)
            .with_name(settings.display_name)
            .with_kind("agent")
            .with_attributes({APP_ATTRIBUTE: APP, EPOCH_ATTRIBUTE: "0"})
            .with_grants(grants)
            .to_jwt()
        )
        info = await self.rooms.ensure(room)
        await self.server.simulate_job(room, room_info=info, token=token)

    def _failed(self, name: str) -> Callable[[Exception], None]:
        return lambda _error: self.metrics.add("parts_restarted", label=name)

    async def _run_store(self) -> None:
        try:
            await self.store.run()
        except ConfigError as exc:
            for problem in exc.problems:
                _say("configuration is wrong", problem=problem)
            self.stop(MISCONFIGURED)

    async def _serve(self, *, dev: bool, registers: bool) -> None:
        """The server's end, however it comes, is the worker's."""
        try:
            async with asyncio.timeout(_STORE_FIRST_S):
                await self.store.tried.wait()
        except TimeoutError:
            logger.warning("starting without the database")
        if self._stopping.is_set():
            return
        self._running = True
        try:
            await self.server.run(devmode=dev, unregistered=not registers)
        except (RuntimeError, ValueError, OSError):
            logger.exception("worker failed")
            self.stop(FAILED)
        else:
            self.stop()

    async def _hand_over(self) -> None:
        logger.info("stopping", extra={"rooms": self.leases.count})
        if self._running:
            await self._end_jobs()
        await self.leases.settle(self._jobs)
        if self._registered.is_set():
            await self._settle()
        try:
            await self.store.flush()
        except StoreError:
            logger.exception("records remain in the journal for the next start")

    async def _settle(self) -> None:
        """Gives the rooms of the jobs that ended to other workers."""
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await self.steward.settle()
        except TimeoutError:
            logger.warning("rooms were left to another worker's steward")

    async def _end_jobs(self) -> None:
        try:
            await self.server.drain(timeout=max(1, math.ceil(self._settings.drain_timeout_s)))
        except TimeoutError:
            logger.info("rooms are handed over", extra={"rooms": self.leases.count})
        await self.server.aclose()

    # Jobs

    def _jobs(self) -> Mapping[str, str]:
        if not self._started.is_set():
            return {}
        return {info.job.id: info.job.room.name for info in self.server.active_jobs}

    def _job_ended(self, claim: Claim) -> None:
        self.metrics.add("jobs_ended")
        self.steward.job_ended(claim)

    async def _request(self, request: JobRequest) -> None:
        room, holder = request.room.name, request.id
        if self.server.draining or self.leases.count >= self._settings.max_rooms:
            self.metrics.add("jobs_refused", label="full")
            await request.reject(terminate=False)
            return
        grant = await self._claim(room, holder)
        if grant is None:
            logger.info("room has a bot already", extra={"room": room})
            self.metrics.add("jobs_refused", label="served")
            await request.reject(terminate=True)
            return
        try:
            await request.accept(
                name=self._settings.display_name,
                attributes=_attributes(grant),
            )
        except BaseException:
            await self.leases.drop(holder)
            raise

    async def _claim(self, room: str, holder: str) -> Grant | None:
        """The lease, one of epoch 0 where there is no table now; None where the room is served."""
        try:
            async with asyncio.timeout(_TAKE_LEASE_S):
                return await self.leases.take(room, holder)
        except (StoreError, TimeoutError):
            logger.warning("no lease table, trusting the room's list", extra={"room": room})
        try:
            if await self.rooms.bots(room):
                return None
        except ProviderError:
            logger.warning("no list of participants either, taking the room")
        self.leases.adopt(room, holder)
        return Grant(0, None)

    def _on_registered(self, *_: object) -> None:
        self._registered.set()
        self.steward.wake()

    def _woken(self) -> None:
        """A web service heard from LiveKit that something happened in a room."""
        if self.steward.leads:
            self.steward.wake()

    # Facts

    def ready(self) -> Mapping[str, bool]:
        """State by part, for `/ready`."""
        return {
            "livekit": self._registered.is_set(),
            "database": self.store.is_up,
            "taking_rooms": not self._stopping.is_set(),
        }

    def _describe(self) -> None:
        gauge = self.metrics.gauge
        gauge("rooms", "rooms that this worker serves", lambda: float(self.leases.count))
        gauge("database_up", "1 while the database answers", lambda: float(self.store.is_up))
        gauge(
            "journal_records",
            "records of this host that wait for PostgreSQL, told by the process that moves them",
            lambda: float(self.store.records_waiting),
        )
        gauge("steward_leads", "1 where this worker watches all rooms", lambda: self.steward.leads)
        gauge("registered", "1 once LiveKit knows this worker", lambda: self._registered.is_set())


def make_server(
    settings: Settings, relay: Path, on_request: Callable[[JobRequest], Awaitable[None]]
) -> AgentServer:
    """The framework's server, with our load, our permissions and our job."""

    def load(server: AgentServer) -> float:
        rooms = len(server.active_jobs)
        return FULL_LOAD * rooms / settings.max_rooms if rooms < settings.max_rooms else 1.0

    in_process = settings.executor == "process"
    server = AgentServer(
        job_executor_type=JobExecutorType.PROCESS if in_process else JobExecutorType.THREAD,
        num_idle_processes=1,
        setup_fnc=partial(job.prewarm, job.Boot(settings=settings, relay=relay)),
        load_fnc=load,
        # The framework's own estimate would refuse the second of two rooms that come at once.
        load_threshold=math.inf,
        permissions=WorkerPermissions(can_publish=False, hidden=settings.hidden),
        preload_modules=["agent.job_process", "agent.job"],
        session_end_timeout=_FINISH_S,
        shutdown_process_timeout=10.0,
        max_retry=_FOR_EVER,
        ws_url=settings.livekit_url,
        api_key=settings.livekit_api_key,
        api_secret=settings.livekit_api_secret,
        host=settings.health_host,
        port=settings.health_port,
    )
    server.rtc_session(
        job.entry,
        agent_name=settings.agent_name,
        on_request=on_request,
        on_session_end=job.finish,
    )
    return server


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Worker]:
    """A worker with its socket, its LiveKit client and its metrics server."""
    make_vad(settings.vad_backend)  # a plugin may only be imported on the main thread
    with TemporaryDirectory(prefix="roomscribe-") as directory:
        relay = Path(directory) / "relay.sock"
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            client = api.LiveKitAPI(
                _http(settings.livekit_url),
                settings.livekit_api_key,
                settings.livekit_api_secret,
                session=http,
            )
            worker = Worker(settings, client, relay)
            async with (
                listening(worker.relay, relay),
                serving(worker.metrics, settings.health_host, settings.metrics_port, worker.ready),
            ):
                yield worker


def _attributes(grant: Grant) -> dict[str, str]:
    """What a bot carries into its room."""
    attributes = {APP_ATTRIBUTE: APP, EPOCH_ATTRIBUTE: str(grant.epoch)}
    if grant.languages:
        attributes[LANGUAGES_ATTRIBUTE] = languages_text(grant.languages)
    if grant.heard_until is not None:
        attributes[HEARD_ATTRIBUTE] = grant.heard_until.isoformat()
    return attributes


def _say(message: str, **extra: object) -> None:
    """An error that a human must act on; a stack trace would not help."""
    logger.error(message, extra=extra)


def _http(url: str) -> str:
    return f"http{url[2:]}" if url.startswith("ws") else url
