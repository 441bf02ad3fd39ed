"""`make run` as a newcomer meets it: fresh directory, no variables; nothing is left at the end."""

import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from dev.livekit import cache_dir
from dev.processes import Child
from tests.live.programs import Programs

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]

StartRun = Callable[..., Child]

READY_WITHIN_S = 90.0
GONE_WITHIN_S = 30.0


@pytest.fixture
def data_dir(livekit_binary: Path) -> Iterator[Path]:
    """Fresh, and open to the account that root's PostgreSQL runs as. The server is built."""
    with TemporaryDirectory(prefix="roomscribe-run-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture
async def start(data_dir: Path) -> AsyncIterator[StartRun]:
    """Starts `python -m dev.run`; what a test leaves running is ended."""
    async with Programs() as programs:

        def start(*arguments: str, **variables: str) -> Child:
            env = {
                "PATH": os.environ["PATH"],
                "HOME": str(data_dir),
                "XDG_CACHE_HOME": str(cache_dir(os.environ).parent),
                "ROOMSCRIBE_DATA_DIR": str(data_dir),
            }
            return programs.start("run", ["-m", "dev.run", *arguments], env | variables)

        yield start


def running_in(data_dir: Path) -> list[str]:
    """Every process that was started with `data_dir`, the database's included."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            described = [*process.cmdline(), process.environ().get("ROOMSCRIBE_DATA_DIR", "")]
            if any(str(data_dir) in text for text in described):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found


def wait_until_gone(data_dir: Path) -> None:
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := running_in(data_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def test_everything_starts_says_what_it_is_and_stops(start: StartRun, data_dir: Path) -> None:
    run = start()
    page = run.wait_for("Roomscribe runs: open", READY_WITHIN_S).split("open ")[1].split()[0]
    assert httpx.get(page, timeout=10).status_code == 200
    for line in (
        r"ready: LiveKit +ws://127\.0\.0\.1:\d+",
        r"ready: fallback +STAND-IN for LiveKit Egress",
        r"ready: database +embedded PostgreSQL",
        r"ready: speech +STAND-IN for Gladia",
        r"ready: insights +STAND-IN for OpenAI",
        r"ready: web +http",
        r"ready: worker",
    ):
        assert run.wait_for(line, 1)
    run.signal(signal.SIGINT)
    assert run.wait(60) == 0, run.tail()
    wait_until_gone(data_dir)


def test_kill_9_leaves_nothing_running(start: StartRun, data_dir: Path) -> None:
    run = start()
    run.wait_for("Roomscribe runs", READY_WITHIN_S)
    os.kill(run.pid, signal.SIGKILL)  # not its group: each part leads one of its own
    wait_until_gone(data_dir)


def test_a_taken_port_is_named(start: StartRun, data_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        run = start(PORT=str(port))
        assert run.wait(30) == 2
        assert f"PORT={port} (web) is taken" in run.output


def test_a_livekit_url_without_keys_lists_both(start: StartRun, data_dir: Path) -> None:
    run = start(LIVEKIT_URL="wss://example.invalid")
    assert run.wait(30) == 2
    assert "LIVEKIT_API_KEY is not set" in run.output
    assert "LIVEKIT_API_SECRET is not set" in run.output
