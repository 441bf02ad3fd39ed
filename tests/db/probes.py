"""What the tests of this room share besides fixtures."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from db.embedded import EmbeddedConfig
from db.pool import Database, DatabaseSettings

Open = Callable[[str], AbstractAsyncContextManager[Database]]


def settings(url: str, home: Path = Path("/nonexistent")) -> DatabaseSettings:
    return DatabaseSettings(
        url=url,
        application="test",
        connect_timeout_s=0.5,
        command_timeout_s=0.5,
        embedded=EmbeddedConfig(home=home, linger_s=0.1),
    )


def wait_until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Polls; fails the test when the limit is over."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Polls in the event loop."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - the far side has no event
            await asyncio.sleep(0.01)
