"""Sessions that a dead process leaves open at Gladia are stopped by whoever lives."""

import asyncio
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import aiohttp
import pytest

from agent.gladia.open_sessions import OpenSessions, stop_left_behind, watch
from agent.gladia.slots import SessionSlots
from core.gladia.events import Interim
from dev.gladia import GladiaStandIn
from dev.gladia.faults import RefuseHandshake, RefusePost
from dev.gladia.policy import Policy
from tests.agent.gladia_kit import open_speaker, until

DOOMED = """
import asyncio, sys
from pathlib import Path
import aiohttp
from agent.gladia.live import GladiaAccount, LiveTranscription
from agent.gladia.slots import SessionSlots
from core.gladia.events import Interim
from core.gladia.options import GladiaOptions
from dev import watermark
async def main(url, directory, count):
    slots = SessionSlots(Path(directory), 30)
    pcm = watermark.encode(range(1, 4), 0).pcm.tobytes()
    heard = asyncio.Semaphore(0)
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        for number in range(int(count)):
            live = LiveTranscription(
                options=GladiaOptions(),
                account=GladiaAccount(api_key="stand-in", base_url=url, http=http),
                slots=slots, utterance_prefix=f"u{number}", metadata={},
                on_event=lambda event: isinstance(event, Interim) and heard.release(),
            )
            tasks.create_task(live.run())
            live.push_audio(0, pcm)
        for _ in range(int(count)):
            await heard.acquire()
        print("heard", flush=True)
        await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def killed(standin: GladiaStandIn, directory: Path, count: int) -> None:
    """A process opens so many sessions, is heard in each, and is killed with -9."""
    await asyncio.to_thread(_live_and_die, standin.base_url, directory, count)


def _live_and_die(url: str, directory: Path, count: int) -> None:
    command = [sys.executable, "-c", DOOMED, url, str(directory), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "heard\n"
        finally:
            process.kill()


def notes(directory: Path) -> list[Path]:
    return [*(directory / "open").iterdir()]


async def test_the_next_speaker_stops_the_sessions_of_the_dead(
    gladia: GladiaStandIn, tmp_path: Path
) -> None:
    await killed(gladia, tmp_path, 3)
    assert len(gladia.open_sessions()) == 3
    assert len(notes(tmp_path)) == 3
    async with open_speaker(gladia, SessionSlots(tmp_path, 30)) as speaker:
        await until(lambda: not gladia.open_sessions(), 5)
        await until(lambda: not notes(tmp_path))
        await speaker.count(1, 3)
        await speaker.live.drain(10)
        speaker.assert_intact()


async def test_a_full_account_of_the_dead_is_free_again(tmp_path: Path) -> None:
    """The dead hold every session that the account has; the living get them."""
    async with GladiaStandIn(policy=Policy(max_sessions=2)) as gladia:
        await killed(gladia, tmp_path, 2)
        async with open_speaker(gladia, SessionSlots(tmp_path, 2)) as speaker:
            await speaker.count(1, 3)
            speaker.rest()
            await until(lambda: speaker.has_finals([1, 2, 3]), 10)
            await speaker.live.drain(10)
            speaker.assert_intact()


async def test_a_worker_without_rooms_stops_them_too(gladia: GladiaStandIn, tmp_path: Path) -> None:
    await killed(gladia, tmp_path, 1)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch(tmp_path), name="watch")
        await until(lambda: not gladia.open_sessions(), 5)
        await until(lambda: not notes(tmp_path))
        watching.cancel()


async def test_sessions_of_the_living_are_left_alone(gladia: GladiaStandIn, tmp_path: Path) -> None:
    slots = SessionSlots(tmp_path, 30)
    async with aiohttp.ClientSession() as http, open_speaker(gladia, slots) as speaker:
        await speaker.count(1, 2)
        await until(lambda: any(isinstance(event, Interim) for event in speaker.events))
        assert len(notes(tmp_path)) == 1
        await stop_left_behind(SessionSlots(tmp_path, 30).open_sessions, http)
        await speaker.count(3, 4)
        await speaker.live.drain(10)
        speaker.assert_intact()
        assert len(gladia.sessions[0].connections) == 1
    assert not notes(tmp_path)


@pytest.fixture
async def open_session(gladia: GladiaStandIn) -> str:
    """URL of a session that nobody is connected to."""
    async with (
        aiohttp.ClientSession(gladia.base_url) as http,
        http.post("/v2/live", json={}, headers={"x-gladia-key": gladia.api_key}) as answer,
    ):
        return str((await answer.json())["url"])


async def test_a_session_that_cannot_be_reached_is_tried_again(
    gladia: GladiaStandIn, tmp_path: Path, open_session: str
) -> None:
    sessions = OpenSessions(tmp_path)
    leave_behind(sessions, open_session)
    gladia.faults.add(RefuseHandshake(status=503))
    async with aiohttp.ClientSession() as http:
        await stop_left_behind(sessions, http)
        assert len(gladia.open_sessions()) == len(notes(tmp_path)) == 1
        await stop_left_behind(sessions, http)
    assert not gladia.open_sessions()
    assert not notes(tmp_path)


@pytest.mark.parametrize("stranger", ["403", "4403"])
async def test_a_session_that_has_ended_is_forgotten(
    gladia: GladiaStandIn, tmp_path: Path, open_session: str, stranger: Literal["403", "4403"]
) -> None:
    gladia.policy = Policy(stranger=stranger)
    sessions = OpenSessions(tmp_path)
    leave_behind(sessions, open_session.partition("=")[0] + "=unknown")
    async with aiohttp.ClientSession() as http:
        await stop_left_behind(sessions, http)
    assert not notes(tmp_path)


async def test_nobody_is_called_about_a_session_that_is_past_its_life(
    gladia: GladiaStandIn, tmp_path: Path, open_session: str
) -> None:
    sessions = OpenSessions(tmp_path)
    leave_behind(sessions, open_session)
    (path,) = notes(tmp_path)
    long_ago = (datetime.now(UTC) - timedelta(hours=4)).timestamp()
    os.utime(path, (long_ago, long_ago))
    async with aiohttp.ClientSession() as http:
        await stop_left_behind(sessions, http)
    assert not notes(tmp_path)
    assert not gladia.sessions[0].connections


async def test_who_gives_up_during_an_outage_leaves_the_session_to_others(
    gladia: GladiaStandIn, tmp_path: Path
) -> None:
    """The speaker's time is up before Gladia can be told to stop."""
    slots = SessionSlots(tmp_path, 30)
    async with open_speaker(gladia, slots) as speaker:
        await speaker.count(1, 2)
        await until(lambda: any(isinstance(event, Interim) for event in speaker.events))
        gladia.faults.add(RefuseHandshake(status=503), times=None)
        gladia.drop_all()
        await until(lambda: "reconnecting" in speaker.states())
        await speaker.live.drain(0.2)
    assert len(gladia.open_sessions()) == len(notes(tmp_path)) == 1
    gladia.faults.clear()
    async with aiohttp.ClientSession() as http:
        await stop_left_behind(slots.open_sessions, http)
    assert not gladia.open_sessions()
    assert not notes(tmp_path)


async def test_who_gives_up_while_a_session_is_made_leaves_it_to_others(
    gladia: GladiaStandIn, tmp_path: Path
) -> None:
    """Gladia makes the session although nobody waits for the answer any more."""
    slots = SessionSlots(tmp_path, 30)
    gladia.faults.add(RefusePost(status=201, delay_s=1.0))
    async with open_speaker(gladia, slots) as speaker:
        await speaker.count(1, 2)
        await speaker.live.drain(0.2)
    assert len(gladia.open_sessions()) == len(notes(tmp_path)) == 1
    async with aiohttp.ClientSession() as http:
        await stop_left_behind(slots.open_sessions, http)
    assert not gladia.open_sessions()
    assert not notes(tmp_path)


async def test_the_secret_stays_in_a_file_of_ours(
    gladia: GladiaStandIn, tmp_path: Path, open_session: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sessions = OpenSessions(tmp_path)
    leave_behind(sessions, open_session)
    (path,) = notes(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert gladia.sessions[0].token not in path.name
    async with aiohttp.ClientSession() as http:
        await stop_left_behind(sessions, http)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("agent")]
    assert ours
    assert not [text for text in ours if gladia.sessions[0].token in text]


def test_a_disk_that_fails_costs_the_note_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("in the way")
    sessions = OpenSessions(tmp_path)
    assert sessions.note("wss://host/v2/live?token=secret") is None
    assert sessions.left_behind() == []


def leave_behind(sessions: OpenSessions, url: str) -> None:
    """What a dead process leaves."""
    note = sessions.note(url)
    assert note is not None
    note.leave()
