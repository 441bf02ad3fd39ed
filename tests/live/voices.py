"""People who count while nobody, an egress or a bot hears them, and what was stored of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dev import watermark
from dev.egress import EgressServer
from dev.reporter import Reporter
from dev.robot import Robot, open_robot
from tests.live.programs import Web

PERIOD_S = 0.6
TOLERANCE = timedelta(seconds=0.3)
StartWeb = Callable[..., Awaitable[Web]]


@dataclass
class Voice:
    robot: Robot
    reporter: Reporter
    name: str
    speaker: int
    counted: int = 0
    said_at: dict[int, datetime] = field(default_factory=dict)
    """When the middle of each number was spoken."""

    async def count(self, words: int, *, reports: bool = True) -> None:
        """Says the next `words` numbers, and reports itself as a browser would."""
        numbers = range(self.counted, self.counted + words)
        self.counted += words
        recording = watermark.encode(numbers, self.speaker, period_s=PERIOD_S, tail_s=1.5)
        async with asyncio.TaskGroup() as group:
            if reports:
                speaking = self.reporter.speaks(0.5 + words * PERIOD_S)
                group.create_task(speaking, name="reporter")
            said = await self.robot.start_saying(recording.pcm)
        for number, mark in zip(numbers, recording.marks, strict=True):
            self.said_at[number] = said.at((mark.start_s + mark.end_s) / 2)


@asynccontextmanager
async def voices(web: Web, slug: str, *names: str) -> AsyncIterator[list[Voice]]:
    async with AsyncExitStack() as stack:
        made = []
        for speaker, name in enumerate(names):
            ticket = await web.join(slug, name)
            robot = await stack.enter_async_context(
                open_robot(ticket["serverUrl"], ticket["token"])
            )
            reporter = Reporter(web.http, slug, robot.identity, ticket["token"])
            made.append(Voice(robot, reporter, name, speaker))
        yield made


def words(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    ordered = sorted(rows, key=lambda row: row["startedAt"])
    return [pair for row in ordered for pair in watermark.parse(row["text"])]


def covered(rows: Sequence[dict[str, Any]], at: datetime) -> bool:
    """Whether a gap says that this moment was not transcribed."""
    return any(
        datetime.fromisoformat(row["startedAt"]) - TOLERANCE
        <= at
        <= datetime.fromisoformat(row["endedAt"]) + TOLERANCE
        for row in rows
        if row["kind"] == "gap"
    )


async def stored(
    web: Web, slug: str, enough: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 40
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                rows = [row for row in await web.transcript(slug) if row["isFinal"]]
                if enough(rows):
                    return rows
                await asyncio.sleep(0.3)
    except TimeoutError as error:
        error.add_note(f"stored: {[(row['source'], row['speaker'], row['text']) for row in rows]}")
        raise


async def until_active(egress: EgressServer, count: int, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while len(egress.active()) != count:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.1)


async def until_running(web: Web, slug: str) -> None:
    async with asyncio.timeout(30):
        while True:
            answer = await web.http.post("/api/transcription/start", json={"sessionSlug": slug})
            if answer.status_code == 200 and answer.json()["state"] == "running":
                return
            await asyncio.sleep(0.2)
