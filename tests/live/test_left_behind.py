"""A job that is killed leaves its Gladia sessions open: somebody else must stop them."""

import asyncio
import os
import signal

import pytest

from dev import watermark
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer
from dev.processes import Child
from dev.robot import open_robot
from tests.live.room_watch import job_pid

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


@pytest.mark.parametrize("stays", [True, False], ids=["somebody stays", "everybody goes"])
async def test_the_sessions_of_a_killed_job_are_stopped(
    worker: Child, livekit_server: LiveKitServer, gladia: GladiaStandIn, slug: str, stays: bool
) -> None:
    """By the room's next bot where there is one, by the worker where nobody is left to hear."""
    async with open_robot(livekit_server.url, livekit_server.token(slug, "maria")) as robot:
        async with asyncio.timeout(60):
            await robot.heard.wait()
        await robot.say(watermark.encode(range(4), 0, period_s=0.45, lead_s=0.3).pcm)
        assert len(gladia.open_sessions()) == 1
        os.kill(job_pid(worker, slug), signal.SIGKILL)
        if not stays:
            await robot.leave()
        async with asyncio.timeout(15):
            while gladia.sessions[0].is_open:  # noqa: ASYNC110 - the stand-in has no event for it
                await asyncio.sleep(0.05)
