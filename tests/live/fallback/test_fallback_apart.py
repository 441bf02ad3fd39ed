"""The fallback away from the web service: a process of its own, and an RTMP server between."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from dev.egress import EgressServer
from dev.gladia import GladiaStandIn
from dev.processes import free_port
from tests.agent.ingest_nginx import open_nginx
from tests.live.programs import Web
from tests.live.voices import StartWeb, stored, until_active, until_running, voices, words

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]
SECRET = "a secret that all processes of the service share"


@asynccontextmanager
async def viewer(web: Web, slug: str) -> AsyncIterator[list[dict[str, Any]]]:
    """What a viewer outside the room is shown, as it comes."""
    token = (await web.get(f"/api/sessions/{slug}/transcription/token"))["token"]
    url = f"{web.url.replace('http', 'ws', 1)}/api/realtime/transcribe"
    shown: list[dict[str, Any]] = []
    async with (
        connect(f"{url}?token={token}&sessionSlug={slug}", compression=None) as socket,
        asyncio.TaskGroup() as tasks,
    ):

        async def watch() -> None:
            while True:
                shown.append(json.loads(await socket.recv()))

        watching = tasks.create_task(watch(), name="viewer")
        yield shown
        watching.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.1)


async def test_a_process_of_its_own_posts_its_lines_to_the_web_service(
    start_web: StartWeb, egress: EgressServer, gladia: GladiaStandIn
) -> None:
    port, ingest_port = str(free_port()), str(free_port())
    web = await start_web(
        SERVER_MODE="ws",
        PORT=port,
        AUTH_SECRET=SECRET,
        METRICS_SECRET="told",
        METRICS_SOURCES=f"http://127.0.0.1:{ingest_port}/metrics",
    )
    await start_web(
        SERVER_MODE="rtmp",
        PORT=ingest_port,
        AUTH_SECRET=SECRET,
        METRICS_SECRET="told",
        REALTIME_BROADCAST_MODE="http",
        WS_SERVER_URL=f"http://127.0.0.1:{port}",
    )
    slug = await web.create_session()
    async with voices(web, slug, "Ann") as (ann,), viewer(web, slug) as shown:
        await until_active(egress, 1)
        await until(lambda: any(one.get("source") == "rtmp" for one in shown))
        await ann.count(6, reports=False)

        def finals() -> list[dict[str, Any]]:
            return [one for one in shown if one.get("isFinal") and one["text"]]

        await until(lambda: len(words(finals())) >= 6)
        assert words(finals()) == [(0, n) for n in range(6)]
        assert {one["source"] for one in finals()} == {"rtmp"}
        assert {one["source"] for one in shown if one["type"] == "status"} == {"rtmp"}
        assert words(await stored(web, slug, lambda rows: len(words(rows)) >= 6)) == words(finals())
    refused = await web.http.get("/metrics")
    assert refused.status_code == 401
    headers = {"authorization": "Bearer told", "accept": "application/json"}
    metrics = (await web.http.get("/metrics", headers=headers)).json()
    assert metrics["ingest.broadcast_latency_ms"] > 0
    assert metrics["ingest.ffmpeg_errors"] == 0
    assert metrics["counters"]["ingest_broadcast_count"] >= len(words(finals()))
    assert set(gladia.heard().values()) == {1}


async def test_an_rtmp_server_stands_between_egress_and_us(
    start_web: StartWeb, egress: EgressServer, gladia: GladiaStandIn, tmp_path: Path
) -> None:
    async with open_nginx(tmp_path) as port:
        url = f"rtmp://127.0.0.1:{port}/session/{{key}}"
        web = await start_web(RTMP_PUSH_URL=url, RTMP_PULL_URL=url)
        slug = await web.create_session()
        async with voices(web, slug, "Ann") as (ann,):
            await until_active(egress, 1)
            await until_running(web, slug)
            await ann.count(8)
            rows = await stored(web, slug, lambda rows: len(words(rows)) >= 8)
            assert words(rows) == [(0, n) for n in range(8)]
            assert {(row["source"], row["speaker"]) for row in rows if row["text"]} == {
                ("rtmp", "Ann")
            }
            assert (await web.http.delete(f"/api/sessions/{slug}")).is_success
            await until_active(egress, 0)
    assert set(gladia.heard().values()) == {1}
