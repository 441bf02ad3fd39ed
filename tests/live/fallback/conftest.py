"""A LiveKit server with a stand-in for its Egress service, and web services that use both."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from dev.egress import EgressServer, open_egress
from dev.livekit import LiveKitServer
from dev.processes import free_port
from tests.live.programs import Programs, Web, until_answering
from tests.live.voices import StartWeb


@pytest.fixture
async def egress(livekit_server: LiveKitServer) -> AsyncIterator[EgressServer]:
    key, secret = livekit_server.api_key, livekit_server.api_secret
    async with open_egress(livekit_server.http_url, key, secret) as server:
        yield server


@pytest.fixture
async def start_web(environment: dict[str, str], egress: EgressServer) -> AsyncIterator[StartWeb]:
    """Starts web services that reach LiveKit by way of the Egress stand-in."""
    async with Programs() as programs, AsyncExitStack() as stack:

        async def start(**variables: str) -> Web:
            port = variables.get("PORT") or str(free_port())
            url = f"http://127.0.0.1:{port}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
            own = {
                "PORT": port,
                "RTMP_PORT": str(free_port()),
                "LIVEKIT_URL": egress.url.replace("http", "ws", 1),
                "LIVEKIT_PUBLIC_URL": environment["LIVEKIT_URL"],
                "FALLBACK_AFTER_SECONDS": "5",
            }
            child = programs.start("web", ["-m", "web"], environment | own | variables)
            await until_answering(http, child)
            return Web(url, child, http)

        yield start
