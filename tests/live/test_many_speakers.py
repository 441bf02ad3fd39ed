"""More people than Gladia sessions: who waits is told so, and every word comes out in the end."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import pytest

from dev.counting import Talker, Witness
from dev.gladia import GladiaStandIn
from dev.gladia.policy import Policy
from dev.livekit import LiveKitServer
from dev.robot import Robot, open_robot
from tests.live.counting import heard, settled, shown_states
from tests.live.programs import StartProgram

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

PEOPLE: Final = ("maria", "john", "aiko", "omar")
SESSIONS: Final = 2
WORDS: Final = 12


@pytest.mark.parametrize("ours", [SESSIONS, 30], ids=["our-limit", "the-accounts-limit"])
async def test_more_speakers_than_sessions_lose_no_word(
    start_worker: StartProgram,
    livekit_server: LiveKitServer,
    gladia: GladiaStandIn,
    database_url: str,
    slug: str,
    ours: int,
) -> None:
    """Everybody stays. Whoever finds no session is buffered until somebody else is silent."""
    gladia.policy = Policy(max_sessions=SESSIONS)
    worker = await start_worker(GLADIA_MAX_SESSIONS=str(ours))
    server = livekit_server
    talkers = [Talker(number + 3, name) for number, name in enumerate(PEOPLE)]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        robots = [
            await stack.enter_async_context(open_robot(server.url, server.token(slug, name)))
            for name in PEOPLE
        ]
        watcher = await stack.enter_async_context(
            open_robot(server.url, server.token(slug, "watcher"), microphone=False)
        )
        listening = Witness().listening(server.url, server.token(slug, "witness"))
        witness = await stack.enter_async_context(listening)
        for robot in robots:
            await heard(robot)
        counting = [
            tasks.create_task(talker.count(robot, WORDS, period_s=0.6), name=talker.identity)
            for talker, robot in zip(talkers, robots, strict=True)
        ]
        await asyncio.wait(counting)
        served = {who for who, state in _newest_states(watcher).items() if state == "live"}
        assert len(served) == SESSIONS
        verdict = await settled(database_url, slug, talkers, witness)
        assert verdict.problems == {}
        assert not verdict.covered
        reason = "no_slot" if ours == SESSIONS else "gladia_busy"
        assert ("queued", reason) in shown_states(watcher)
        assert gladia.slots <= SESSIONS
    assert worker.returncode is None


def _newest_states(watcher: Robot) -> dict[str, str]:
    """Everybody's state in the newest status message."""
    messages = [item.body for item in watcher.messages.items if item.topic == "status"]
    return {speaker["speakerId"]: speaker["state"] for speaker in messages[-1]["speakers"]}
