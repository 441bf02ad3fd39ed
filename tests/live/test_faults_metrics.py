"""What Gladia did to a room is on the worker's metrics page, by kind."""

import asyncio
import re

import aiohttp
import pytest

from dev import watermark
from dev.gladia import GladiaStandIn
from dev.gladia.faults import Acks, Drop, RefusePost, When
from dev.livekit import LiveKitServer
from dev.processes import free_port
from dev.robot import open_robot
from tests.live.programs import StartProgram

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

FAULTS = {"gladia_busy", "connection_lost", "chunk_refused"}
"""A 429, a drop in mid-sentence and a chunk that Gladia did not take."""


async def test_each_fault_of_gladia_is_counted(
    start_worker: StartProgram, livekit_server: LiveKitServer, gladia: GladiaStandIn, slug: str
) -> None:
    port = free_port()
    await start_worker(METRICS_PORT=str(port))
    gladia.faults.add(RefusePost(status=429, retry_after_s=0.2))
    gladia.faults.add(Drop(how="reset"), when=When(at_byte=32_000))
    gladia.faults.add(Acks(how="refuse"), when=When(at_byte=64_000))
    token = livekit_server.token(slug, "maria")
    async with open_robot(livekit_server.url, token) as robot:
        async with asyncio.timeout(60):
            await robot.heard.wait()
        await robot.say(watermark.encode(range(8), 0, period_s=0.45, lead_s=0.3).pcm)
        async with asyncio.timeout(30), aiohttp.ClientSession() as http:
            while not await counted(http, port) >= FAULTS:  # noqa: ASYNC110 - it is scraped
                await asyncio.sleep(0.2)
    assert not gladia.faults.pending()


async def counted(http: aiohttp.ClientSession, port: int) -> set[str]:
    """Kinds of faults on the page."""
    async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
        page = await answer.text()
    return set(re.findall(r'roomscribe_gladia_faults_total\{kind="(\w+)"\} [1-9]', page))
