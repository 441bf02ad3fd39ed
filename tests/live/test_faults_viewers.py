"""While PostgreSQL is away, viewers outside the room still get every line, and each once."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect

from db.embedded import EmbeddedPostgres
from dev import watermark
from dev.passage import Passage, open_passage
from dev.robot import Robot, open_robot
from tests.live.programs import StartProgram, Web

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]

WORDS = 6


@pytest.fixture
async def passage(postgres: EmbeddedPostgres) -> AsyncIterator[Passage]:
    async with open_passage(postgres.layout.socket) as passage:
        yield passage


@pytest.fixture
def environment(environment: dict[str, str], passage: Passage, database_url: str) -> dict[str, str]:
    database = urlsplit(database_url).path
    url = f"postgresql://roomscribe@127.0.0.1:{passage.port}{database}?sslmode=disable"
    return environment | {"DATABASE_URL": url}


async def watch(viewer: ClientConnection, finals: list[dict[str, Any]]) -> None:
    async for frame in viewer:
        message: dict[str, Any] = json.loads(frame)
        if message["type"] == "transcript" and message["isFinal"]:
            finals.append(message)


async def until_shown(finals: list[dict[str, Any]], last: int) -> None:
    async with asyncio.timeout(25):
        while not any(  # noqa: ASYNC110 - a poll
            (0, last) in watermark.parse(one["text"]) for one in finals
        ):
            await asyncio.sleep(0.05)


async def count(robot: Robot, first: int) -> int:
    """Says the next numbers; returns the last one."""
    await robot.say(watermark.encode(range(first, first + WORDS), 0, period_s=0.45).pcm)
    return first + WORDS - 1


async def test_lines_go_on_and_nothing_is_doubled(
    passage: Passage, web: Web, start_worker: StartProgram
) -> None:
    await start_worker(WS_SERVER_URL=web.url)
    slug = await web.create_session()
    token = (await web.get(f"/api/sessions/{slug}/transcription/token"))["token"]
    address = web.url.replace("http", "ws", 1)
    url = f"{address}/api/realtime/transcribe?token={token}&sessionSlug={slug}"
    finals: list[dict[str, Any]] = []
    ticket = await web.join(slug, "Maria")
    async with (
        connect(url, compression=None) as viewer,
        open_robot(ticket["serverUrl"], ticket["token"]) as robot,
        asyncio.TaskGroup() as tasks,
    ):
        watching = tasks.create_task(watch(viewer, finals))
        await asyncio.wait_for(robot.heard.wait(), 60)
        await until_shown(finals, await count(robot, 0))
        passage.freeze()
        await until_shown(finals, await count(robot, WORDS))
        await passage.close()
        await until_shown(finals, await count(robot, 2 * WORDS))
        await passage.open()
        await until_shown(finals, await count(robot, 3 * WORDS))
        await asyncio.wait_for(_stored(web, slug, 4 * WORDS), 40)
        watching.cancel()
    said = Counter(pair for one in finals for pair in watermark.parse(one["text"]))
    assert said == Counter((0, number) for number in range(4 * WORDS))


async def _stored(web: Web, slug: str, words: int) -> None:
    """Everything is in PostgreSQL, from where the viewer was caught up too."""
    while True:
        answer = await web.http.get(f"/api/sessions/{slug}/transcript?limit=1000")
        lines = answer.json()["segments"] if answer.status_code == 200 else []
        if sum(len(watermark.parse(line["text"])) for line in lines) >= words:
            return
        await asyncio.sleep(0.2)
