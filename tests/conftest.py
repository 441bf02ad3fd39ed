"""Parts that tests run against, each a real program on a free port, and the leak checks.

Session-scoped programs start on first use. A test session leaves nothing behind: no process, no
file outside its temporary directory, no port.
"""

import asyncio
import gc
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import psutil
import pytest

from core.errors import ConfigError
from db.embedded import EmbeddedConfig, EmbeddedPostgres, is_locked
from db.migrate import load, migrate
from dev import livekit as livekit_dev
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer, Ports
from dev.processes import ChildFailed
from tests.retries import Retries

# Set before any test module imports the framework, as agent.py does for the worker.
os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"
os.environ["LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS"] = "0"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

API_KEY = "testkey"
API_SECRET = "testsecret-testsecret-testsecret!"
"""More than 32 bytes, so that no library warns about a short key."""
_LEAK_GRACE_S = 10.0
_PORT_TRIES = 3

StartLiveKit = Callable[..., LiveKitServer]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Retries())


@pytest.fixture(scope="session")
def livekit_binary() -> Path:
    try:
        return livekit_dev.ensure_binary(os.environ, print)
    except ConfigError as exc:
        pytest.fail(str(exc))


@pytest.fixture(scope="session")
def livekit_server(livekit_binary: Path) -> Iterator[LiveKitServer]:
    """The test session's LiveKit server; rooms need unique names, `slug` makes them."""
    server = _start_livekit(livekit_binary)
    yield server
    server.stop()


@pytest.fixture
def start_livekit(livekit_binary: Path) -> Iterator[StartLiveKit]:
    """Starts servers of this test's own: `start_livekit(ports=, overrides={"room": {...}})`."""
    with ExitStack() as stack:

        def start(**options: Any) -> LiveKitServer:
            server = _start_livekit(livekit_binary, **options)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The test session's PostgreSQL. It need not survive a power cut, so it does not sync."""
    with TemporaryDirectory(prefix="roomscribe-test-") as home:
        Path(home).chmod(0o711)  # root's server runs as another account, which must get in
        config = EmbeddedConfig(
            home=Path(home),
            linger_s=0.1,
            options=("fsync=off", "synchronous_commit=off", "full_page_writes=off"),
        )
        server = EmbeddedPostgres(config)
        server.ensure()
        yield server
        server.close()
        deadline = time.monotonic() + _LEAK_GRACE_S
        while is_locked(server.layout.supervisor) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_locked(server.layout.supervisor), "PostgreSQL did not stop"


@pytest.fixture(scope="session")
def postgres_url(postgres: EmbeddedPostgres) -> str:
    """URL of the server's own empty database; tests of migrations create theirs beside it."""
    return postgres.url()


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """Name of a migrated database that nobody is connected to."""

    async def prepare() -> None:
        conn = await asyncpg.connect(postgres.url("migrated"))
        await migrate(conn, load())
        await conn.close()

    _execute(postgres.url(), "create database migrated")
    _run(prepare())
    return "migrated"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """A migrated, empty database of this test's own."""
    name = f"test_{os.urandom(6).hex()}"
    _execute(postgres.url(), f"create database {name} template {template_database}")
    yield postgres.url(name)
    _execute(postgres.url(), f"drop database {name} with (force)")


@pytest.fixture
async def gladia() -> AsyncIterator[GladiaStandIn]:
    """A stand-in that hears watermarks; see `dev.gladia` for its faults and oracles."""
    async with GladiaStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def slug(request: pytest.FixtureRequest) -> str:
    """A room name that no other test uses."""
    return f"{request.node.originalname[:40]}-{os.urandom(4).hex()}"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where the parts of one test keep journal, locks and sockets."""
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a child process, an open file or (async tests) a task."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("no_task_left_behind")
    us = psutil.Process()
    children = {child.pid for child in us.children(recursive=True)}
    files = {file.path for file in us.open_files()}
    yield
    left = _left_children(us, children)
    deadline = time.monotonic() + _LEAK_GRACE_S
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _left_children(us, children)
    assert not left, f"processes left behind: {left}"
    if opened := {file.path for file in us.open_files()} - files:
        gc.collect()
        opened &= {file.path for file in us.open_files()}
    assert not opened, f"files left open: {opened}"


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"


def _execute(url: str, statement: str) -> None:
    async def execute() -> None:
        conn = await asyncpg.connect(url)
        await conn.execute(statement)
        await conn.close()

    _run(execute())


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs it in a loop of its own, without touching the loop that tests get."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(coroutine)


def _left_children(us: psutil.Process, known: set[int]) -> list[str]:
    left = []
    for child in us.children(recursive=True):
        if child.pid in known:
            continue
        try:
            command = " ".join(child.cmdline())
        except psutil.Error:
            continue  # it ended while we looked
        if child.status() != psutil.STATUS_ZOMBIE and not _is_pythons_own(command):
            left.append(f"{child.pid} {command[:120]}")
    return left


def _is_pythons_own(command: str) -> bool:
    """Multiprocessing's tracker and forkserver live as long as the interpreter."""
    return "multiprocessing.resource_tracker" in command or "multiprocessing.forkserver" in command


def _start_livekit(
    binary: Path, *, ports: Ports | None = None, overrides: dict[str, dict[str, Any]] | None = None
) -> LiveKitServer:
    """On loopback only, without webhooks unless `overrides` has a webhook section."""
    sections = {
        "rtc": {"node_ip": "127.0.0.1"},
        "webhook": {"urls": []},
        "logging": {"level": "info"},
        **(overrides or {}),
    }
    for attempt in range(_PORT_TRIES):
        try:
            return livekit_dev.start(
                binary,
                api_key=API_KEY,
                api_secret=API_SECRET,
                ports=ports or Ports.free(),
                overrides=sections,
            )
        except ChildFailed as exc:  # somebody else took a port between our look and its bind
            if "address already in use" not in str(exc) or ports or attempt == _PORT_TRIES - 1:
                raise
    raise AssertionError
