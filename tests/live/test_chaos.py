"""Six people count for three minutes while everything breaks; `make chaos` is the long form."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from db.embedded import EmbeddedPostgres
from dev import chaos
from dev.arena import open_arena

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

SEED = 4
DURATION_S = 130.0
"""Of faults; with start, calm and the look around it takes three minutes and a half."""


async def test_nothing_is_lost_doubled_or_left_behind(
    livekit_binary: Path, postgres: EmbeddedPostgres, database_url: str, state_dir: Path, slug: str
) -> None:
    database = urlsplit(database_url).path.lstrip("/")
    socket = postgres.layout.socket
    async with open_arena(livekit_binary, socket, database, state_dir, slug) as arena:
        report = await chaos.run(arena, database_url, SEED, DURATION_S)
    print(report)  # noqa: T201 - the figures
    assert report.problems == {}
