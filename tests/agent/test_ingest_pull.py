"""Pulling from a real nginx-rtmp: found late, lost, found again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.ingest.decoder import pull_command
from agent.ingest.pull import Puller
from tests.agent.ingest_kit import (
    Tape,
    ffmpeg_publisher,
    gstreamer_publisher,
    run_program,
    tone_at,
    until,
)
from tests.agent.ingest_nginx import open_nginx


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[int]:
    async with open_nginx(tmp_path) as port:
        yield port


async def test_a_stream_is_pulled_lost_and_pulled_again(nginx: int) -> None:
    url = f"rtmp://127.0.0.1:{nginx}/session"
    tape, gone = Tape(), 0

    def push(pcm: bytes) -> None:
        tape.push(len(tape.pcm) // 2, pcm)

    def lost() -> None:
        nonlocal gone
        gone += 1

    puller = Puller(
        pull_command(f"{url}/XkAG"),
        on_pcm=push,
        on_gone=lost,
        on_error=lambda _: None,
    )
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(puller.run(), name="pull")
        publisher = ffmpeg_publisher(f"{url}/XkAG?token=x", 30)
        first = group.create_task(run_program(publisher), name="first")
        await until(lambda: tape.seconds > 1.0, 15)
        first.cancel()
        await until(first.done)
        before = tape.seconds
        publisher = gstreamer_publisher(f"{url}/XkAG?token=x", 30)
        second = group.create_task(run_program(publisher), name="second")
        await until(lambda: tape.seconds > before + 1.0, 25)
        puller.end()
        await until(pulling.done)
        second.cancel()
    assert tone_at(bytes(tape.pcm), 0.5) == pytest.approx(440, abs=10)
    assert gone >= 1
