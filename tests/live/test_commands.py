"""`python agent.py`: what it says about itself, and one bot into one room."""

import asyncio
import signal
import sys

import pytest

from dev import watermark
from dev.livekit import LiveKitServer
from dev.processes import Child
from dev.robot import open_robot
from tests.live.programs import ROOT, Programs

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


def agent(*arguments: str, env: dict[str, str]) -> Child:
    return Child("agent", [sys.executable, "-u", "agent.py", *arguments], env=env, cwd=ROOT)


def test_start_lists_every_problem_at_once_and_exits_2(environment: dict[str, str]) -> None:
    env = {"PATH": environment["PATH"], "HOME": environment["HOME"], "AGENT_EXECUTOR": "fast"}
    child = agent("start", env=env)
    assert child.wait(30) == 2
    child.kill()
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "GLADIA_API_KEY"):
        assert name in child.output
    assert "DATABASE_URL" in child.output
    assert "AGENT_EXECUTOR must be one of" in child.output


def test_help_names_the_commands(environment: dict[str, str]) -> None:
    child = agent("--help", env=environment)
    assert child.wait(30) == 0
    child.kill()
    for command in ("dev", "start", "connect"):
        assert command in child.output


async def test_connect_sends_one_bot_into_one_room(
    environment: dict[str, str], livekit_server: LiveKitServer, slug: str
) -> None:
    recording = watermark.encode(range(5), speaker=4)
    token = livekit_server.token(slug, "talker", "Talker")
    async with Programs() as programs, open_robot(livekit_server.url, token) as robot:
        bot = programs.start("connect", ["agent.py", "connect", slug], environment)
        async with asyncio.timeout(60):
            await robot.heard.wait()
        await robot.say(recording.pcm)
        await robot.messages.until(
            lambda _: sum(len(watermark.parse(body["text"])) for body in robot.finals()) == 5
        )
        assert {body["speaker"] for body in robot.finals()} == {"Talker"}
        bot.signal(signal.SIGTERM)
        assert await asyncio.to_thread(bot.wait, 30) == 0, bot.tail()
