"""A room without a bot is carried by Egress until a bot is there: all words, once, named."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from dev import watermark
from dev.egress import EgressServer, open_egress
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer
from dev.processes import free_port
from dev.reporter import Reporter
from dev.robot import Robot, open_robot
from tests.live.programs import Programs, StartProgram, Web, until_answering

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]
PERIOD_S = 0.6


@pytest.fixture
async def egress(livekit_server: LiveKitServer) -> AsyncIterator[EgressServer]:
    key, secret = livekit_server.api_key, livekit_server.api_secret
    async with open_egress(livekit_server.http_url, key, secret) as server:
        yield server


StartWeb = Callable[..., Awaitable[Web]]


@pytest.fixture
async def start_web(environment: dict[str, str], egress: EgressServer) -> AsyncIterator[StartWeb]:
    """Starts web services that reach LiveKit by way of the Egress stand-in."""
    async with Programs() as programs, AsyncExitStack() as stack:

        async def start(**variables: str) -> Web:
            port = variables.get("PORT") or str(free_port())
            url = f"http://127.0.0.1:{port}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
            own = {
                "PORT": port,
                "RTMP_PORT": str(free_port()),
                "LIVEKIT_URL": egress.url.replace("http", "ws", 1),
                "LIVEKIT_PUBLIC_URL": environment["LIVEKIT_URL"],
                "FALLBACK_AFTER_SECONDS": "5",
            }
            child = programs.start("web", ["-m", "web"], environment | own | variables)
            await until_answering(http, child)
            return Web(url, child, http)

        yield start


@dataclass
class Voice:
    robot: Robot
    reporter: Reporter
    name: str
    speaker: int
    counted: int = 0

    async def count(self, words: int, *, reports: bool = True) -> None:
        """Says the next `words` numbers, and reports itself as a browser would."""
        numbers = range(self.counted, self.counted + words)
        self.counted += words
        recording = watermark.encode(numbers, self.speaker, period_s=PERIOD_S, tail_s=1.5)
        async with asyncio.TaskGroup() as group:
            if reports:
                speaking = self.reporter.speaks(0.5 + words * PERIOD_S)
                group.create_task(speaking, name="reporter")
            await self.robot.start_saying(recording.pcm)


@asynccontextmanager
async def voices(web: Web, slug: str, *names: str) -> AsyncIterator[list[Voice]]:
    async with AsyncExitStack() as stack:
        made = []
        for speaker, name in enumerate(names):
            ticket = await web.join(slug, name)
            robot = await stack.enter_async_context(
                open_robot(ticket["serverUrl"], ticket["token"])
            )
            reporter = Reporter(web.http, slug, robot.identity, ticket["token"])
            made.append(Voice(robot, reporter, name, speaker))
        yield made


def words(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    ordered = sorted(rows, key=lambda row: row["startedAt"])
    return [pair for row in ordered for pair in watermark.parse(row["text"])]


async def stored(
    web: Web, slug: str, enough: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 40
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                rows = [row for row in await web.transcript(slug) if row["isFinal"]]
                if enough(rows):
                    return rows
                await asyncio.sleep(0.3)
    except TimeoutError as error:
        error.add_note(f"stored: {[(row['source'], row['speaker'], row['text']) for row in rows]}")
        raise


async def until_active(egress: EgressServer, count: int, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while len(egress.active()) != count:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.1)


async def until_running(web: Web, slug: str) -> None:
    async with asyncio.timeout(30):
        while True:
            answer = await web.http.post("/api/transcription/start", json={"sessionSlug": slug})
            if answer.status_code == 200 and answer.json()["state"] == "running":
                return
            await asyncio.sleep(0.2)


async def test_the_mix_speaks_until_a_bot_is_there(
    start_web: StartWeb, start_worker: StartProgram, egress: EgressServer, gladia: GladiaStandIn
) -> None:
    web = await start_web()
    slug = await web.create_session()
    async with voices(web, slug, "Ann", "Bob") as (ann, bob):
        await until_active(egress, 1)
        await until_running(web, slug)
        await ann.count(8)
        await bob.count(8)
        rows = await stored(web, slug, lambda rows: len(words(rows)) >= 16)
        assert words(rows) == [(0, n) for n in range(8)] + [(1, n) for n in range(8)]
        speech = [row for row in rows if row["text"]]
        assert {row["source"] for row in speech} == {"rtmp"}
        right = [
            row for row in speech if row["speaker"] == ("Ann" if row["text"][0] == "a" else "Bob")
        ]
        assert right == speech
        assert [row["reason"] for row in rows if not row["text"]] == ["no_transcriber"]
        shown = [body for body in ann.robot.finals() if body["text"]]
        assert words(shown) == words(rows)
        assert ann.reporter.refused == bob.reporter.refused == []

        await start_worker()
        await until_active(egress, 0)
        async with asyncio.timeout(30):
            await ann.robot.heard.wait()
        await ann.count(6, reports=False)
        rows = await stored(web, slug, lambda rows: len(words(rows)) >= 22)
        assert words(rows)[16:] == [(0, n) for n in range(8, 14)]
        assert {row["source"] for row in rows[-1:]} == {"agent"}
    assert set(gladia.heard().values()) == {1}


async def test_tracks_keep_their_names_and_come_back_after_our_restart(
    start_web: StartWeb, egress: EgressServer, gladia: GladiaStandIn
) -> None:
    port = str(free_port())
    web = await start_web(FALLBACK_MODE="off", PORT=port)
    slug = await web.create_session()
    start = {"sessionSlug": slug, "mode": "tracks"}
    async with voices(web, slug, "Ann", "Bob") as (ann, bob):
        for _ in range(2):
            assert (await web.http.post("/api/transcription/start", json=start)).is_success
        await until_active(egress, 2)
        await until_running(web, slug)
        async with asyncio.TaskGroup() as group:
            group.create_task(ann.count(8, reports=False), name="ann")
            group.create_task(bob.count(8, reports=False), name="bob")
        rows = await stored(web, slug, lambda rows: len(words(rows)) >= 16)
        speech = [row for row in rows if row["text"]]
        assert {row["source"] for row in speech} == {"track"}
        assert {(row["speaker"], row["text"][0]) for row in speech} == {("Ann", "a"), ("Bob", "b")}

        await asyncio.to_thread(web.child.stop, 30)
        await until_active(egress, 0)
        web = await start_web(FALLBACK_MODE="tracks", PORT=port)
        await until_active(egress, 2)
        await until_running(web, slug)
        await ann.count(4, reports=False)
        rows = await stored(web, slug, lambda rows: len(words(rows)) >= 20)
        stop = await web.http.post("/api/transcription/stop", json={"sessionSlug": slug})
        assert stop.json()["state"] == "stopping"
        await until_active(egress, 0)
    assert sorted(words(rows)) == sorted([(0, n) for n in range(12)] + [(1, n) for n in range(8)])
    assert set(gladia.heard().values()) == {1}


async def test_trouble_on_the_way_is_healed(
    start_web: StartWeb, egress: EgressServer, gladia: GladiaStandIn
) -> None:
    """A wedged egress, a killed decoder, a lost publisher, and the end of the session."""
    egress.wedged = True
    web = await start_web()
    slug = await web.create_session()
    async with voices(web, slug, "Ann") as (ann,):
        await until_active(egress, 1)
        wedged = egress.active()[0].egress_id
        egress.wedged = False
        async with asyncio.timeout(40):
            while wedged in {info.egress_id for info in egress.active()}:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.1)
        await until_running(web, slug)

        async with asyncio.TaskGroup() as group:
            counting = group.create_task(ann.count(12), name="ann")
            await asyncio.sleep(4)
            for child in psutil.Process(web.child.pid).children():
                if "ffmpeg" in child.name():
                    child.kill()
            await counting
        rows = await stored(web, slug, lambda rows: len(words(rows)) >= 12)
        assert words(rows) == [(0, n) for n in range(12)]

        encoders = [one for one in psutil.Process().children() if "ffmpeg" in one.name()]
        assert len(encoders) == 1
        encoders[0].kill()
        await asyncio.sleep(2)
        await until_running(web, slug)
        await ann.count(4)
        rows = await stored(web, slug, lambda rows: len(words(rows)) >= 16)
        assert words(rows)[12:] == [(0, n) for n in range(12, 16)]
        reasons = {row["reason"] for row in rows if not row["text"]}
        assert "no_transcriber" in reasons

        assert (await web.http.delete(f"/api/sessions/{slug}")).is_success
        await until_active(egress, 0)
    assert set(gladia.heard().values()) == {1}
