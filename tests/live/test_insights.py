"""Insights and recaps through the whole system: every part real, text and model scripted."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from dev import watermark
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer
from dev.openai import HttpFault, OpenAiStandIn
from dev.robot import Robot, open_robot
from tests.live.programs import StartProgram, Web
from tests.live.room_watch import job_pid, watching
from tests.live.scripted_ear import ScriptedEar

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

TOPICS = (
    "budget money costs spending",
    "hiring people interviews salary",
    "travel trains tunnels visits",
)
"""Four words each, by which the stand-in tells them apart; two of them are its label."""
BLOCK = 40
"""Numbers that belong to one topic."""
FIRST = 6
"""Numbers that are enough text for the first call: 120 characters."""
NEXT = 22
"""Numbers that are enough for a later one: 500 characters."""


def script(number: int) -> str:
    topic = TOPICS[number // BLOCK % len(TOPICS)]
    return f"we agreed {topic} {number % BLOCK:02}"


@pytest.fixture
async def gladia() -> AsyncIterator[GladiaStandIn]:
    async with GladiaStandIn(ear=ScriptedEar(script)) as stand_in:
        yield stand_in


@pytest.fixture
async def model() -> AsyncIterator[OpenAiStandIn]:
    async with OpenAiStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def environment(environment: dict[str, str], model: OpenAiStandIn) -> dict[str, str]:
    return environment | {
        "OPENAI_API_KEY": model.api_key,
        "OPENAI_BASE_URL": model.base_url,
        "RECAP_AFTER_SECONDS": "1",
    }


@asynccontextmanager
async def speaking(web: Web, slug: str) -> AsyncIterator[Robot]:
    ticket = await web.join(slug, "Maria")
    async with open_robot(ticket["serverUrl"], ticket["token"]) as robot:
        await asyncio.wait_for(robot.heard.wait(), 60)
        yield robot


async def say(robot: Robot, first: int, count: int) -> None:
    numbers = range(first, first + count)
    await robot.say(watermark.encode(numbers, 0, period_s=0.4, pause_every=6, pause_s=0.6).pcm)


def insights_in(robot: Robot) -> list[dict[str, Any]]:
    return [one.body for one in robot.messages.items if one.topic == "insights"]


async def until_topic(robot: Robot, topic: str) -> dict[str, Any]:
    """The room is told that this is talked about."""

    def told(_: object) -> bool:
        return any(topic in body["currentTopic"].lower() for body in insights_in(robot))

    await robot.messages.until(told, 45)
    return insights_in(robot)[-1]


async def until_state(robot: Robot, state: str) -> None:
    await robot.messages.until(
        lambda messages: any(
            one.topic == "status" and one.body.get("insights") == state for one in messages
        ),
        45,
    )


@asynccontextmanager
async def viewers(web: Web, slug: str, count: int) -> AsyncIterator[list[ClientConnection]]:
    token = (await web.get(f"/api/sessions/{slug}/transcription/token"))["token"]
    address = web.url.replace("http", "ws", 1)
    url = f"{address}/api/realtime/transcribe?token={token}&sessionSlug={slug}"
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connect(url, compression=None)) for _ in range(count)
        ]


async def shown(viewer: ClientConnection, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The next message that fits."""
    async with asyncio.timeout(30):
        while True:
            message: dict[str, Any] = json.loads(await viewer.recv())
            if fits(message):
                return message


async def until_stored(web: Web, slug: str, topic: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = await web.get(f"/api/sessions/{slug}/insights")
            if topic in (found["currentTopic"] or "").lower():
                return found
            await asyncio.sleep(0.1)


def ids(topics: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(one["id"], one["label"], one["startedAtSec"]) for one in topics]


async def stored_calls(database_url: str, slug: str) -> int:
    conn = await asyncpg.connect(database_url)
    try:
        count: int = await conn.fetchval(
            "select count(*) from session_insights i join sessions s on s.id = i.session_id"
            " where s.slug = $1",
            slug,
        )
    finally:
        await conn.close()
    return count


async def test_everybody_sees_them_and_a_killed_job_goes_on(
    web: Web,
    start_worker: StartProgram,
    livekit_server: LiveKitServer,
    database_url: str,
    model: OpenAiStandIn,
) -> None:
    assert (await web.get("/api/config"))["insights"] is True
    worker = await start_worker()
    slug = await web.create_session()
    async with (
        watching(livekit_server, slug) as watch,
        viewers(web, slug, 1) as (viewer,),
        speaking(web, slug) as robot,
    ):
        await say(robot, 0, FIRST)
        first = await until_topic(robot, "budget")
        seen = await shown(viewer, lambda one: one["type"] == "insights")
        assert seen == first
        await until_state(robot, "live")
        await say(robot, BLOCK, NEXT)
        second = await until_topic(robot, "hiring")
        assert second["topicChanged"]
        assert ids(second["topics"])[:1] == ids(first["topics"])
        stored = await until_stored(web, slug, "hiring")
        assert ids(stored["topics"]) == ids(second["topics"])
        assert stored["aiTitle"] == second["aiTitle"]

        bot, _ = await watch.bot()
        os.kill(job_pid(worker, slug), signal.SIGKILL)
        await watch.bot(other_than=bot)
        await say(robot, 2 * BLOCK, 2 * NEXT - 10)
        third = await until_topic(robot, "travel")
        assert ids(third["topics"])[:2] == ids(second["topics"])
        late = await until_stored(web, slug, "travel")
        assert ids(late["topics"]) == ids(third["topics"])
        async with asyncio.timeout(20):
            while await stored_calls(database_url, slug) != len(model.requests):  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.1)
        assert model.max_in_flight == 1
    await check_recap(web, slug)


async def check_recap(web: Web, slug: str) -> None:
    """Ending the session yields a recap whose statements rest on stored lines."""
    assert (await web.http.post(f"/api/sessions/{slug}/end")).status_code == 200
    async with asyncio.timeout(40):
        while True:
            answer = await web.http.get(f"/api/sessions/{slug}/summary")
            if answer.status_code == 200 and answer.json()["state"] == "done":
                break
            await asyncio.sleep(0.2)
    known = {line["utteranceId"] for line in await web.transcript(slug)}
    summary = answer.json()
    assert summary["summary"]
    assert summary["decisions"]
    for statement in [*summary["summary"], *summary["decisions"]]:
        assert set(statement["utteranceIds"]) <= known
    page = await web.http.get(f"/api/sessions/{slug}/summary.md")
    assert f"{web.url}/session/{slug}#u={summary['summary'][0]['utteranceIds'][0]}" in page.text


async def test_viewers_cost_no_calls(
    web: Web, start_worker: StartProgram, model: OpenAiStandIn
) -> None:
    await start_worker()
    calls = {}
    for count in (1, 10, 100):
        slug, before = await web.create_session(), len(model.requests)
        async with viewers(web, slug, count) as watchers, speaking(web, slug) as robot:
            await say(robot, 0, FIRST)
            await until_topic(robot, "budget")
            await say(robot, BLOCK, NEXT)
            await until_topic(robot, "hiring")
            for viewer in watchers:
                await shown(viewer, _is_about_hiring)
        calls[count] = len(model.requests) - before
    print(calls)  # noqa: T201 - figures
    assert set(calls.values()) == {2}


def _is_about_hiring(message: dict[str, Any]) -> bool:
    return message["type"] == "insights" and "hiring" in message["currentTopic"].lower()


async def test_a_failing_model_is_said_and_harms_no_caption(
    web: Web, start_worker: StartProgram, model: OpenAiStandIn
) -> None:
    await start_worker()
    model.faults.extend([HttpFault(status=500)] * 200)
    slug = await web.create_session()
    async with speaking(web, slug) as robot:
        await say(robot, 0, FIRST)
        await until_state(robot, "failing")
        await say(robot, BLOCK, FIRST)
        wanted = [script(number) for number in (*range(FIRST), *range(BLOCK, BLOCK + FIRST))]
        await robot.messages.until(
            lambda _: all(
                any(phrase in body["text"] for body in robot.finals()) for phrase in wanted
            )
        )
        assert insights_in(robot) == []
        model.faults.clear()
        await until_topic(robot, "hiring")


class TestWithoutAKey:
    @pytest.fixture
    def environment(self, environment: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if "OPENAI" not in name}

    async def test_it_is_off_and_says_so(self, web: Web, start_worker: StartProgram) -> None:
        assert (await web.get("/api/config"))["insights"] is False
        await start_worker()
        slug = await web.create_session()
        async with speaking(web, slug) as robot:
            await until_state(robot, "off")
