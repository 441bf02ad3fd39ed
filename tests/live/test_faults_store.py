"""Whatever happens to PostgreSQL, captions go on, and every final is stored once, in order."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from db.embedded import EmbeddedPostgres
from dev import watermark
from dev.counting import Talker
from dev.livekit import LiveKitServer
from dev.passage import Passage, open_passage
from dev.processes import Child
from dev.robot import Robot, open_robot
from tests.live.counting import heard, settled
from tests.live.programs import StartProgram
from tests.live.room_watch import job_pid

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]

WORDS = 16
"""Numbers in a row: 8 s with the pauses."""


@pytest.fixture
async def passage(postgres: EmbeddedPostgres) -> AsyncIterator[Passage]:
    """The workers' way to PostgreSQL; tests look at it directly."""
    async with open_passage(postgres.layout.socket) as passage:
        yield passage


@pytest.fixture
def environment(environment: dict[str, str], passage: Passage, database_url: str) -> dict[str, str]:
    database = urlsplit(database_url).path
    url = f"postgresql://roomscribe@127.0.0.1:{passage.port}{database}?sslmode=disable"
    return environment | {"DATABASE_URL": url}


@asynccontextmanager
async def maria(server: LiveKitServer, slug: str) -> AsyncIterator[tuple[Robot, Talker]]:
    """Somebody who is heard."""
    async with open_robot(server.url, server.token(slug, "maria", "Maria")) as robot:
        await heard(robot)
        yield robot, Talker(1, "maria")


async def count(talker: Talker, robot: Robot, words: int = WORDS) -> None:
    await talker.count(robot, words, period_s=0.45, pause_every=4)


async def until_shown(robot: Robot, talker: Talker) -> None:
    """Every number was shown in the room as a final."""
    wanted = {(talker.speaker, number) for number in range(talker.next_number)}
    await robot.messages.until(
        lambda _: (
            wanted <= {pair for body in robot.finals() for pair in watermark.parse(body["text"])}
        )
    )


async def check(database_url: str, slug: str, talker: Talker, *, gaps: bool = False) -> None:
    verdict = await settled(database_url, slug, [talker])
    print(verdict)  # noqa: T201 - figures
    assert verdict.problems == {}
    assert gaps or not verdict.covered


async def _close(passage: Passage) -> None:
    await passage.close()


async def _freeze(passage: Passage) -> None:
    passage.freeze()


async def _restart(passage: Passage) -> None:
    await passage.close()
    await asyncio.sleep(0.5)
    await passage.open()


async def _cut_in_mid_batch(passage: Passage) -> None:
    passage.cut_after_bytes = 3000


async def _slow_down(passage: Passage) -> None:
    passage.delay_s = 0.3


@pytest.mark.parametrize(
    "trouble",
    [_close, _freeze, _restart, _cut_in_mid_batch, _slow_down],
    ids=lambda one: one.__name__,
)
async def test_captions_go_on_and_finals_arrive_once(
    trouble: Callable[[Passage], Awaitable[None]],
    passage: Passage,
    worker: Child,
    livekit_server: LiveKitServer,
    database_url: str,
    slug: str,
) -> None:
    async with maria(livekit_server, slug) as (robot, talker):
        await count(talker, robot, 4)
        await trouble(passage)
        await count(talker, robot)
        await until_shown(robot, talker)
        passage.delay_s = 0.0
        passage.thaw()
        await passage.open()
        await check(database_url, slug, talker)
    assert worker.returncode is None


async def test_down_at_the_start(
    passage: Passage,
    start_worker: StartProgram,
    livekit_server: LiveKitServer,
    database_url: str,
    slug: str,
) -> None:
    await passage.close()
    await start_worker()
    async with maria(livekit_server, slug) as (robot, talker):
        await count(talker, robot)
        await until_shown(robot, talker)
        await passage.open()
        await check(database_url, slug, talker)


async def test_a_dead_workers_journal_is_adopted(
    passage: Passage,
    start_worker: StartProgram,
    livekit_server: LiveKitServer,
    database_url: str,
    slug: str,
) -> None:
    """Killed while PostgreSQL is away; another worker of the machine takes room and journal.

    LiveKit lists the dead bot for half a minute and no lease can be read, but its mark is unlocked.
    """
    first = await start_worker()
    async with maria(livekit_server, slug) as (robot, talker):
        await count(talker, robot, 4)
        await passage.close()
        await count(talker, robot)
        await start_worker()
        first.signal(signal.SIGKILL)
        await count(talker, robot, 2 * WORDS)
        await passage.open()
        await check(database_url, slug, talker, gaps=True)


def shown_numbers(robot: Robot) -> list[int]:
    return [number for body in robot.finals() for _, number in watermark.parse(body["text"])]


async def test_a_killed_job_leaves_a_gap_not_a_hole(
    worker: Child, livekit_server: LiveKitServer, database_url: str, slug: str
) -> None:
    async with maria(livekit_server, slug) as (robot, talker):
        await count(talker, robot, 4)
        speaking = asyncio.ensure_future(count(talker, robot, 3 * WORDS))
        await asyncio.sleep(4)  # into the count
        os.kill(job_pid(worker, slug), signal.SIGKILL)
        await speaking
        await until_last(robot, talker)
        await check(database_url, slug, talker, gaps=True)


async def until_last(robot: Robot, talker: Talker) -> None:
    await robot.messages.until(lambda _: talker.next_number - 1 in shown_numbers(robot))
