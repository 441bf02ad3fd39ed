"""A stand-in per test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from dev.gladia import GladiaStandIn, Policy
from tests.dev.live_client import Client, Serve


@pytest.fixture
def serve() -> Serve:
    """Starts a stand-in of the test's own with the policy that it names."""

    @asynccontextmanager
    async def run(**policy: Any) -> AsyncIterator[Client]:
        async with (
            GladiaStandIn(policy=Policy(**policy)) as standin,
            aiohttp.ClientSession() as http,
        ):
            client = Client(standin, http)
            yield client
            await client.aclose()

    return run


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Client]:
    async with serve() as client:
        yield client
