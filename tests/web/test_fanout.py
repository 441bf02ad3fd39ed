"""Many viewers, several processes: nobody misses anything."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.fanout import Target, run, until_up
from dev.processes import free_port
from tests.web.lines import segment, stored
from tests.web.service import KEY, LIVEKIT_SECRET, SECRET, SERVICE_SECRET, Running
from tests.web.sockets import PATH


@pytest.mark.timeout(120)
async def test_two_hundred_viewers_lose_nothing(web: Running) -> None:
    """The short form of `python -m bench.fanout`."""

    async def open_session() -> tuple[str, str]:
        slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
        answer = await web.http.get(f"/api/sessions/{slug}/transcription/token")
        return f"{PATH}?token={answer.json()['token']}&sessionSlug={slug}", slug

    target = Target(
        name="ours",
        pid=os.getpid(),
        broadcast_url=f"{web.url}{PATH}/broadcast",
        headers={"authorization": f"Bearer {SERVICE_SECRET}"},
        port=web.service.server.port,
        open_session=open_session,
    )
    result = await run(target, viewers=200, rate=20, seconds=5)
    assert result.received == result.expected == 200 * 100


@asynccontextmanager
async def _process(database_url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`python -m web` of its own, which answers."""
    port = free_port()
    env = {
        **os.environ,
        "PORT": str(port),
        "SERVER_MODE": "ws",
        "DATABASE_URL": database_url,
        "LIVEKIT_URL": "ws://127.0.0.1:9",
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": LIVEKIT_SECRET,
        "AUTH_SECRET": SECRET,
        "SERVICE_SECRET": SERVICE_SECRET,
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "web", env=env)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await until_up(http)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.mark.timeout(120)
async def test_a_killed_process_costs_its_viewers_nothing(database_url: str) -> None:
    async with (
        _process(database_url) as (doomed, first),
        _process(database_url) as (survivor, second),
        httpx.AsyncClient(base_url=second) as http,
    ):
        slug = (await http.post("/api/sessions", json={})).json()["slug"]
        token = (await http.get(f"/api/sessions/{slug}/transcription/token")).json()["token"]
        seen: list[list[str]] = [[] for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            for number, texts in enumerate(seen):
                urls = (first, second) if number % 2 else (second, first)
                watching = _watched(urls, slug, token, texts, until="line 59")
                group.create_task(watching, name=f"viewer:{number}")
            for number in range(60):
                if number == 30:
                    doomed.send_signal(signal.SIGKILL)
                line = segment(slug, number)
                message = {
                    "type": "transcript",
                    "sessionSlug": slug,
                    "utteranceId": line.utterance_id,
                    "text": line.text,
                    "isFinal": True,
                    "speaker": "Ann",
                    "speakerId": "guest-ann",
                    "rev": 1,
                }
                await http.post(
                    f"{PATH}/broadcast",
                    json=message,
                    headers={"authorization": f"Bearer {SERVICE_SECRET}"},
                )
                if number % 10 == 9:
                    lines = (segment(slug, n) for n in range(number - 9, number + 1))
                    await stored(database_url, slug, *lines)
                await asyncio.sleep(0.05)
        assert survivor.returncode is None
    for texts in seen:
        assert sorted(texts) == sorted(f"line {number}" for number in range(60))


async def _watched(
    urls: tuple[str, str], slug: str, token: str, texts: list[str], *, until: str
) -> None:
    """A viewer as a browser is one: comes back, to the other server if need be."""
    known: set[str] = set()
    after, attempt = 0, 0
    while until not in texts:
        base = urls[attempt % 2].replace("http", "ws")
        attempt += 1
        url = f"{base}{PATH}?token={token}&sessionSlug={slug}&after={after}"
        with suppress(OSError, ConnectionClosed):
            async with connect(url, compression=None) as socket:
                after = await _read(socket, texts, known, after, until)
        await asyncio.sleep(0.05)


async def _read(
    socket: ClientConnection, texts: list[str], known: set[str], after: int, until: str
) -> int:
    try:
        async for payload in socket:
            message = json.loads(payload)
            after = message.get("nextAfter", after)
            if message["type"] == "transcript" and message["utteranceId"] not in known:
                known.add(message["utteranceId"])
                texts.append(message["text"])
            if until in texts and len(texts) == 60:
                break
    except ConnectionClosed:
        return after
    return after
