"""Pulling from a real nginx-rtmp: found late, lost, found again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.ingest.decoder import pull_command
from agent.ingest.pull import Puller
from dev.processes import Child, free_port
from tests.agent.ingest_kit import (
    Tape,
    ffmpeg_publisher,
    gstreamer_publisher,
    needed,
    run_program,
    tone_at,
    until,
)

CONFIG = """
load_module {module};
daemon off; master_process off; worker_processes 1;
pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; ack_window 16384;
  application session {{ live on; record off; }} }} }}
"""
MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
HINT = "nginx-rtmp is not installed: apt-get install nginx libnginx-mod-rtmp"


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[int]:
    """The port of an nginx-rtmp with the application `session`."""
    assert MODULE.exists(), HINT  # noqa: ASYNC240 - one look
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(module=MODULE, home=tmp_path, port=port))
    arguments = [needed("nginx", HINT), "-p", str(tmp_path), "-c", str(config)]
    child = Child("nginx", [*arguments, "-e", str(tmp_path / "error.log")], env={}, cwd=tmp_path)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    await writer.wait_closed()
                    break
        yield port
    finally:
        await asyncio.to_thread(child.stop, 5)


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
