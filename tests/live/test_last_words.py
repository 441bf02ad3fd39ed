"""However somebody's talk ends, what they said before is stored once, and shown to who is left.

Nobody here waits for the end of their sentence: the provider has not heard that it is over.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pytest
from livekit import api

from dev import watermark
from dev.counting import Spoken, Talker, Witness
from dev.livekit import LiveKitServer
from dev.processes import Child
from dev.robot import Robot, open_robot
from tests.live.counting import heard, settled
from tests.live.programs import Programs

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

WORDS: Final = 8
ON_ITS_WAY_S: Final = 0.5
"""Encoder, network and jitter buffer; far less than the pause that ends an utterance."""

End = Callable[[api.LiveKitAPI, str, Robot], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Ending:
    """A way to end, and whether the room outlives it."""

    name: str
    end: End
    room_goes_on: bool = True


async def _mute(_client: api.LiveKitAPI, _slug: str, robot: Robot) -> None:
    await robot.set_muted(True)


async def _remove(client: api.LiveKitAPI, slug: str, robot: Robot) -> None:
    request = api.RoomParticipantIdentity(room=slug, identity=robot.identity)
    await client.room.remove_participant(request)


async def _server_mute(client: api.LiveKitAPI, slug: str, robot: Robot) -> None:
    request = api.MuteRoomTrackRequest(
        room=slug, identity=robot.identity, track_sid=robot.track_sid, muted=True
    )
    await client.room.mute_published_track(request)


async def _delete_room(client: api.LiveKitAPI, slug: str, _robot: Robot) -> None:
    await client.room.delete_room(api.DeleteRoomRequest(room=slug))


ENDINGS = (
    Ending("mute", _mute),
    Ending("muted-by-the-server", _server_mute),
    Ending("removed", _remove),
    Ending("room-deleted", _delete_room, room_goes_on=False),
)


async def test_every_way_to_end_keeps_the_last_words(
    worker: Child, livekit_server: LiveKitServer, database_url: str, slug: str
) -> None:
    """One after the other: a job that starts makes the other rooms' sound stutter."""
    server = livekit_server
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
        for ending in ENDINGS:
            await _play(ending, client, server, database_url, f"{slug}-{ending.name}")
    assert worker.returncode is None


async def _play(
    ending: Ending, client: api.LiveKitAPI, server: LiveKitServer, database_url: str, slug: str
) -> None:
    talker = Talker(3, "maria")
    token = server.token
    async with (
        open_robot(server.url, token(slug, "aiko"), microphone=False) as watcher,
        open_robot(server.url, token(slug, "maria", "Maria")) as robot,
        Witness().listening(server.url, token(slug, "witness")) as witness,
    ):
        await heard(robot)
        await talker.count(robot, WORDS, period_s=0.45, tail_s=ON_ITS_WAY_S)
        await ending.end(client, slug, robot)
        verdict = await settled(database_url, slug, [talker], witness, within_s=20)
        assert verdict.problems == {}, ending.name
        assert not verdict.covered, ending.name
        assert verdict.heard >= WORDS - 2, f"{ending.name}: {verdict}"
        if ending.room_goes_on:
            await watcher.messages.until(lambda _: _shown(watcher) == verdict.heard, 10)


def _shown(watcher: Robot) -> int:
    """Words in the final lines of maria that this robot was sent."""
    texts = [body["text"] for body in watcher.finals() if body["speakerId"] == "maria"]
    return len([pair for text in texts for pair in watermark.parse(text)])


async def test_words_of_somebody_who_dies_without_a_goodbye_are_kept(
    worker: Child, livekit_server: LiveKitServer, database_url: str, slug: str
) -> None:
    """Their audio just stops; LiveKit takes a while to notice that nobody is there any more."""
    server = livekit_server
    env = {"PATH": os.environ["PATH"], "URL": server.url, "TOKEN": server.token(slug, "maria")}
    talker = Talker(3, "maria")
    async with (
        open_robot(server.url, server.token(slug, "aiko"), microphone=False) as watcher,
        Witness().listening(server.url, server.token(slug, "witness")) as witness,
        Programs() as programs,
    ):
        doomed = programs.start("maria", ["-m", "tests.live.doomed", str(WORDS)], env)
        line = await asyncio.to_thread(doomed.wait_for, "^SAID ", 60)
        doomed.kill()
        talker.spoken += [_spoken(one) for one in json.loads(line.removeprefix("SAID "))]
        verdict = await settled(database_url, slug, [talker], witness)
        assert verdict.problems == {}
        assert not verdict.covered
        assert verdict.heard >= WORDS - 2, str(verdict)
        await watcher.messages.until(lambda _: _shown(watcher) == verdict.heard, 10)
    assert worker.returncode is None


def _spoken(parts: list[str]) -> Spoken:
    text, started_at, ended_at = parts
    return Spoken(
        "maria", text, datetime.fromisoformat(started_at), datetime.fromisoformat(ended_at)
    )
