"""A room without a bot is carried by Egress until a bot is there: all words, once, named."""

import asyncio

import psutil
import pytest

from dev.egress import EgressServer
from dev.gladia import GladiaStandIn
from dev.processes import free_port
from tests.live.programs import StartProgram
from tests.live.voices import StartWeb, covered, stored, until_active, until_running, voices, words

pytestmark = [pytest.mark.live, pytest.mark.timeout(150)]


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
        assert not ann.reporter.refused + bob.reporter.refused

        await start_worker()
        await until_active(egress, 0)
        await ann.count(6, reports=False)
        rows = await stored(web, slug, lambda rows: (0, 13) in words(rows))
        later = [number for _, number in words(rows)[16:]]
        assert later == sorted(set(later))
        missing = set(range(8, 14)) - set(later)
        assert [number for number in missing if not covered(rows, ann.said_at[number])] == []
        assert len(missing) <= 1, "the bot hears a moment after the egress is done"
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
