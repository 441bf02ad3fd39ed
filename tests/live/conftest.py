"""Our own programs as processes, for tests that go through all of them."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer
from dev.processes import Child, free_port
from tests.live.programs import READY_WITHIN_S, Programs, StartProgram, Web, until_answering


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> None:
    """Puts what earlier tests left alive out of the garbage collector's sight.

    A full collection of it stops every robot and stand-in of this process at once.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def environment(
    livekit_server: LiveKitServer, database_url: str, gladia: GladiaStandIn, state_dir: Path
) -> dict[str, str]:
    """What worker and web are started with: the test's own parts, free ports, quick batches."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(state_dir),
        **livekit_server.env(),
        "DATABASE_URL": database_url,
        "GLADIA_API_KEY": gladia.api_key,
        "GLADIA_API_URL": gladia.base_url,
        "ROOMSCRIBE_DATA_DIR": str(state_dir),
        "TRANSCRIPT_BATCH_SECONDS": "0.2",
        "HEALTH_PORT": "0",
        "METRICS_PORT": "0",
        "RTMP_PORT": "0",
        "RATE_LIMIT_FACTOR": "0",
    }


@pytest.fixture
async def start_worker(environment: dict[str, str]) -> AsyncIterator[StartProgram]:
    """Starts workers (`python agent.py start`); returns each when it is registered."""
    async with Programs() as programs:

        async def start_worker(**variables: str) -> Child:
            child = programs.start("worker", ["agent.py", "start"], environment | variables)
            await asyncio.to_thread(child.wait_for, "registered worker", READY_WITHIN_S)
            return child

        yield start_worker


@pytest.fixture
async def worker(start_worker: StartProgram) -> Child:
    """A registered worker."""
    return await start_worker()


@pytest.fixture
async def web(environment: dict[str, str]) -> AsyncIterator[Web]:
    """The web service (`python -m web`), open."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with Programs() as programs, httpx.AsyncClient(base_url=url, timeout=20) as http:
        child = programs.start("web", ["-m", "web"], environment | {"PORT": str(port)})
        await until_answering(http, child)
        yield Web(url, child, http)
