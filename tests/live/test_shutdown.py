"""What was said before the end is kept: SIGTERM in the middle of a sentence."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from dev import watermark
from dev.processes import Child
from dev.robot import open_robot
from tests.live.programs import StartProgram, Web

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

SPOKEN_S = 6.0
"""Seconds of one unbroken sentence before the worker is told to stop."""
NETWORK = timedelta(milliseconds=500)
"""What was said this shortly before the signal may still have been on its way."""


async def stored_words(database_url: str) -> list[tuple[int, int]]:
    conn = await asyncpg.connect(database_url)
    rows = await conn.fetch(
        "select text from transcript_segments where is_final order by started_at"
    )
    await conn.close()
    return [pair for row in rows for pair in watermark.parse(row["text"])]


async def test_sigterm_in_the_middle_of_a_sentence_keeps_its_words(
    worker: Child, web: Web, database_url: str
) -> None:
    slug = await web.create_session()
    recording = watermark.encode(range(40), speaker=1, period_s=0.4)
    ticket = await web.join(slug, "Maria")
    async with open_robot(ticket["serverUrl"], ticket["token"]) as robot:
        async with asyncio.timeout(30):
            await robot.heard.wait()
        speaking = robot.start_saying(recording.pcm)
        started_at = datetime.now(UTC)
        await robot.messages.until(lambda _: len(robot.transcripts()) > 0)
        await asyncio.sleep(SPOKEN_S)
        stopped_at = datetime.now(UTC)
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 40) == 0, worker.tail()
        assert not speaking.done()
        before = [
            mark
            for mark in recording.marks
            if started_at + timedelta(seconds=mark.end_s) < stopped_at - NETWORK
        ]
        expected = [(mark.speaker, mark.number) for mark in before]
        assert len(expected) > 10
        published = [pair for body in robot.finals() for pair in watermark.parse(body["text"])]
        assert published[: len(expected)] == expected
    assert (await stored_words(database_url))[: len(expected)] == expected


async def test_the_next_worker_goes_on_where_the_last_one_stopped(
    worker: Child, start_worker: StartProgram, web: Web, database_url: str
) -> None:
    """The second worker is there before the first one goes, as in a rolling deployment."""
    slug = await web.create_session()
    recording = watermark.encode(range(60), speaker=2, period_s=0.6, pause_every=5, pause_s=1.0)
    ticket = await web.join(slug, "John")
    async with open_robot(ticket["serverUrl"], ticket["token"]) as robot:
        async with asyncio.timeout(30):
            await robot.heard.wait()
        speaking = robot.start_saying(recording.pcm)
        await robot.messages.until(lambda _: len(robot.finals()) > 0)
        await start_worker()
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 40) == 0, worker.tail()
        await speaking
        last = (2, 59)
        await robot.messages.until(
            lambda _: any(last in watermark.parse(body["text"]) for body in robot.finals())
        )
    words = await stored_words(database_url)
    assert sorted(set(words)) == sorted(words), "a word was stored twice"
    assert words == sorted(words), "words are out of order"
