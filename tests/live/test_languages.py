"""The languages of a session reach Gladia, before those of the installation."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from dev import watermark
from dev.gladia import GladiaStandIn
from dev.robot import Robot, open_robot
from tests.live.programs import StartProgram, Web

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


async def joined(stack: AsyncExitStack, web: Web, slug: str, name: str) -> Robot:
    """Somebody who was heard saying one number."""
    ticket = await web.join(slug, name)
    robot = await stack.enter_async_context(open_robot(ticket["serverUrl"], ticket["token"]))
    await asyncio.wait_for(robot.heard.wait(), 60)
    await robot.say(watermark.encode([1], 0).pcm)
    await robot.messages.until(
        lambda _: any(body["speakerId"] == robot.identity for body in robot.finals())
    )
    return robot


async def test_languages_of_a_session_and_their_change(
    web: Web, start_worker: StartProgram, gladia: GladiaStandIn
) -> None:
    await start_worker(GLADIA_LANGUAGES="en")
    asked = []
    async with AsyncExitStack() as stack:
        answer = await web.http.post("/api/sessions", json={"languages": ["fr", "de"]})
        slug = answer.json()["slug"]
        await joined(stack, web, slug, "Marie")
        asked.append(gladia.sessions[-1].request.languages)
        changed = await web.http.patch(f"/api/sessions/{slug}", json={"languages": ["ru"]})
        assert changed.status_code == 200
        await joined(stack, web, slug, "Ivan")
        asked.append(gladia.sessions[-1].request.languages)
        plain = await web.create_session()
        await joined(stack, web, plain, "Ann")
        asked.append(gladia.sessions[-1].request.languages)
    assert [list(languages) for languages in asked] == [["fr", "de"], ["ru"], ["en"]]
