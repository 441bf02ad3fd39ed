from collections.abc import AsyncIterator

import pytest

from tests.web.service import Running, serving, settings_of


@pytest.fixture
async def web(database_url: str) -> AsyncIterator[Running]:
    """An open service without LiveKit."""
    async with serving(settings_of(database_url)) as running:
        yield running


@pytest.fixture
async def closed_web(database_url: str) -> AsyncIterator[Running]:
    """A service with `AUTH_MODE=closed`, without LiveKit."""
    async with serving(settings_of(database_url, AUTH_MODE="closed")) as running:
        yield running
