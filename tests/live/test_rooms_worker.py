"""The worker's other ways to run: one room by name, threads for rooms, a server that restarts."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from dev import watermark
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer, Ports
from dev.robot import Robot, open_robot
from tests.conftest import StartLiveKit
from tests.live.programs import Programs, StartProgram
from tests.live.room_watch import room_token, watching

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


async def says_and_reads(robot: Robot, numbers: range) -> None:
    """It says the numbers and reads each of them once."""
    async with asyncio.timeout(60):
        await robot.heard.wait()
    await robot.say(watermark.encode(numbers, 0, period_s=0.45, lead_s=0.3).pcm)
    expected = {(0, number) for number in numbers}
    await robot.messages.until(lambda _: expected <= set(read(robot)))
    assert len(read(robot)) == len(set(read(robot)))


def read(robot: Robot) -> list[tuple[int, int]]:
    return [pair for body in robot.finals() for pair in watermark.parse(body["text"])]


async def test_rooms_in_threads(
    start_worker: StartProgram, livekit_server: LiveKitServer, slug: str
) -> None:
    worker = await start_worker(AGENT_EXECUTOR="thread")
    token = room_token(livekit_server, slug, "maria")
    async with open_robot(livekit_server.url, token) as robot:
        await says_and_reads(robot, range(3))
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 40) == 0, worker.tail()


async def test_connect_serves_one_room_and_ends_with_it(
    environment: dict[str, str], livekit_server: LiveKitServer, slug: str
) -> None:
    async with Programs() as programs, watching(livekit_server, slug) as watch:
        worker = programs.start("worker", ["agent.py", "connect", slug], environment)
        token = room_token(livekit_server, slug, "maria")
        async with open_robot(livekit_server.url, token) as robot:
            await says_and_reads(robot, range(3))
            second = programs.start("second", ["agent.py", "connect", slug], environment)
            assert await asyncio.to_thread(second.wait, 60) == 1, second.tail()
        await watch.bot()
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 40) == 0, worker.tail()


async def test_a_restarted_server_finds_one_bot_in_each_room(
    start_worker: StartProgram, start_livekit: StartLiveKit, slug: str, gladia: GladiaStandIn
) -> None:
    ports = Ports.free()
    server = start_livekit(ports=ports)
    await start_worker(**server.env())
    async with (
        watching(server, slug) as watch,
        open_robot(server.url, room_token(server, slug, "maria")) as robot,
    ):
        await says_and_reads(robot, range(3))
        back = [woken_by(robot, "reconnected")]
        server.stop()
        start_livekit(ports=ports)
        async with asyncio.timeout(40):
            for event in back:
                await event.wait()
        await watch.bot()
        await until_heard_again(robot, gladia)


def woken_by(robot: Robot, name: str) -> asyncio.Event:
    event = asyncio.Event()
    listen: Callable[..., object] = robot.room.on
    listen(name, event.set)
    return event


async def until_heard_again(robot: Robot, gladia: GladiaStandIn) -> None:
    """Nobody announces that a subscription is back, so it counts until somebody hears it."""
    async with asyncio.timeout(40):
        for number in range(100, 200):
            await robot.say(watermark.encode([number], 0, period_s=0.45, lead_s=0.3).pcm)
            await asyncio.sleep(1)
            if any(pair[1] >= 100 for pair in read(robot)):
                break
    assert set(gladia.heard().values()) == {1}
