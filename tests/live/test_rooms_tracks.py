"""Every way in which a microphone comes and goes; each word is heard once, under the right name.

Each case is a trap of LiveKit's Python SDK or server that cost somebody transcripts.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.rtc import SimulateScenarioKind

from dev import watermark
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer
from dev.robot import Robot, open_robot
from tests.frozen import frozen
from tests.live.in_process import Bot, open_bot, settings_for
from tests.live.room_watch import room_token

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

Words = list[tuple[int, int]]


def words(numbers: Iterable[int], speaker: int = 0, *, lead_s: float = 0.3) -> watermark.Recording:
    return watermark.encode(numbers, speaker, period_s=0.45, lead_s=lead_s)


def heard_words(bodies: Sequence[dict[str, Any]], identity: str | None = None) -> Words:
    ordered = sorted(bodies, key=lambda body: body["startedAt"])
    return [
        pair
        for body in ordered
        if identity in (None, body["speakerId"])
        for pair in watermark.parse(body["text"])
    ]


async def until_heard(watcher: Robot, expected: Words, timeout_s: float = 40) -> None:
    """Waits for all words; anything more, or twice, fails."""
    await watcher.messages.until(
        lambda _: set(expected) <= set(heard_words(watcher.finals())), timeout_s
    )
    assert sorted(heard_words(watcher.finals())) == sorted(expected)


def counted(numbers: Iterable[int], speaker: int = 0) -> Words:
    return [(speaker, number) for number in numbers]


@asynccontextmanager
async def two_people(server: LiveKitServer, slug: str) -> AsyncIterator[tuple[Robot, Robot]]:
    """Maria, who speaks, and Aiko, who watches."""
    async with (
        open_robot(server.url, room_token(server, slug, "aiko"), microphone=False) as watcher,
        open_robot(server.url, room_token(server, slug, "maria")) as speaker,
    ):
        yield speaker, watcher


@pytest.fixture
async def bot(
    livekit_server: LiveKitServer, gladia: GladiaStandIn, state_dir: Path, slug: str
) -> AsyncIterator[Bot]:
    settings = settings_for(livekit_server, gladia, state_dir)
    async with open_bot(livekit_server, settings, slug) as running:
        yield running


async def test_people_who_were_there_before_the_bot_are_heard(
    livekit_server: LiveKitServer, gladia: GladiaStandIn, state_dir: Path, slug: str
) -> None:
    settings = settings_for(livekit_server, gladia, state_dir)
    async with two_people(livekit_server, slug) as (speaker, watcher):
        async with open_bot(livekit_server, settings, slug) as bot:
            await asyncio.wait_for(speaker.heard.wait(), 10)
            await speaker.say(words(range(4)).pcm)
            await until_heard(watcher, counted(range(4)))
            joined = {record["identity"]: record for record in bot.records("participant")}
        assert set(joined) == {"aiko", "maria"}
        assert joined["maria"]["name"] == "Maria"
        assert joined["maria"]["kind"] == "standard"


async def test_a_microphone_that_is_published_again_is_heard_once(
    livekit_server: LiveKitServer, bot: Bot, slug: str
) -> None:
    """The old AudioStream carries the new track's audio too, unless it is closed."""
    async with two_people(livekit_server, slug) as (speaker, watcher):
        for turn in range(3):
            await asyncio.wait_for(speaker.heard.wait(), 10)
            await speaker.say(words(range(turn * 3, turn * 3 + 3)).pcm)
            await speaker.unpublish_microphone()
            await speaker.publish_microphone()
        await until_heard(watcher, counted(range(9)))
        assert {body["speakerId"] for body in watcher.finals()} == {"maria"}


async def test_who_speaks_next_is_not_heard_under_the_name_of_who_stopped(
    livekit_server: LiveKitServer, bot: Bot, slug: str
) -> None:
    """WebRTC hands a new track to the streams of one that went, whose last sound is awaited.

    For long, since the server stood still for 1.5 s: so much does the jitter buffer hold then.
    """
    async with two_people(livekit_server, slug) as (first, second):
        await asyncio.wait_for(first.heard.wait(), 10)
        speaking = first.start_saying(words(range(10)).pcm)
        await second.messages.until(lambda _: (0, 2) in heard_words(second.transcripts()))
        with frozen([livekit_server.pid]):
            await asyncio.sleep(1.5)
        await speaking
        await first.unpublish_microphone()
        await asyncio.sleep(0.6)  # sooner, the server gives the new track a receiver of its own
        await second.publish_microphone()
        await second.heard.wait()
        await second.say(words(range(6), speaker=1, lead_s=0.0).pcm)
        await second.messages.until(lambda _: (1, 5) in heard_words(second.finals()))
        assert heard_words(second.finals(), "aiko") == counted(range(6), 1)
        assert {voice for voice, _ in heard_words(second.finals(), "maria")} == {0}


async def test_a_second_microphone_is_heard_beside_the_first(
    livekit_server: LiveKitServer, bot: Bot, slug: str
) -> None:
    async with two_people(livekit_server, slug) as (speaker, watcher):
        second = rtc.AudioSource(16000, 1, queue_size_ms=200)
        track = rtc.LocalAudioTrack.create_audio_track("second", second)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await asyncio.wait_for(speaker.heard.wait(), 10)
        speaker.heard.clear()
        await speaker.room.local_participant.publish_track(track, options)
        await asyncio.wait_for(speaker.heard.wait(), 10)
        speaking = speaker.start_saying(words(range(4)).pcm)
        await play(second, words(range(4), speaker=1).pcm)
        await speaking
        await until_heard(watcher, counted(range(4)) + counted(range(4), 1))
        assert {body["speakerId"] for body in watcher.finals()} == {"maria"}
        await second.aclose()


async def play(source: rtc.AudioSource, pcm: Any) -> None:
    for start in range(0, len(pcm) + 16000, 160):
        chunk = bytes(pcm[start : start + 160].tobytes())
        frame = rtc.AudioFrame(chunk.ljust(320, b"\0"), 16000, 1, 160)
        await source.capture_frame(frame)


async def test_a_muted_microphone_sends_nothing_and_costs_nothing(
    livekit_server: LiveKitServer, bot: Bot, gladia: GladiaStandIn, slug: str
) -> None:
    async with two_people(livekit_server, slug) as (speaker, watcher):
        await asyncio.wait_for(speaker.heard.wait(), 10)
        await speaker.say(words(range(3)).pcm)
        await until_heard(watcher, counted(range(3)))
        await speaker.set_muted(True)
        await asyncio.sleep(1.5)  # the end of the last words, with their trailing silence
        billed_s = gladia.billed_s
        await speaker.say(words(range(100, 104)).pcm)
        assert gladia.billed_s == billed_s
        await speaker.set_muted(False)
        await speaker.say(words(range(3, 6)).pcm)
        await until_heard(watcher, counted(range(6)))


@pytest.mark.parametrize(
    "scenario",
    [
        SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT,
        SimulateScenarioKind.SIMULATE_FULL_RECONNECT,
    ],
)
async def test_the_bots_reconnect_leaves_nobody_unheard(
    livekit_server: LiveKitServer, bot: Bot, slug: str, scenario: SimulateScenarioKind.ValueType
) -> None:
    """Subscriptions asked for before `reconnected` are lost: AUDIO_ONLY stays deaf here."""
    async with two_people(livekit_server, slug) as (speaker, watcher):
        await asyncio.wait_for(speaker.heard.wait(), 10)
        await speaker.say(words(range(3)).pcm)
        reconnected = asyncio.Event()
        bot.room.on("reconnected", reconnected.set)
        await bot.room.simulate_scenario(scenario)
        await asyncio.wait_for(reconnected.wait(), 20)
        await until_subscribed(bot, "maria")
        await speaker.say(words(range(3, 6), lead_s=1.5).pcm)
        await until_heard(watcher, counted(range(6)))
        gaps = [one for one in bot.records("segment") if one["kind"] == "gap"]
        is_full = scenario == SimulateScenarioKind.SIMULATE_FULL_RECONNECT
        assert [gap["reason"] for gap in gaps] == ["no_bot"] * is_full
        assert len(bot.records("session")) == 1
        assert all(record["left_at"] is None for record in bot.records("participant"))


@pytest.mark.parametrize(
    "scenario",
    [
        SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT,
        SimulateScenarioKind.SIMULATE_FULL_RECONNECT,
    ],
)
async def test_a_speakers_reconnect_keeps_one_speaker(
    livekit_server: LiveKitServer, bot: Bot, slug: str, scenario: SimulateScenarioKind.ValueType
) -> None:
    async with two_people(livekit_server, slug) as (speaker, watcher):
        await asyncio.wait_for(speaker.heard.wait(), 10)
        await speaker.say(words(range(3)).pcm)
        reconnected = asyncio.Event()
        speaker.room.on("reconnected", reconnected.set)
        await speaker.room.simulate_scenario(scenario)
        await asyncio.wait_for(reconnected.wait(), 20)
        await until_subscribed(bot, "maria")
        await speaker.say(words(range(3, 6), lead_s=1.5).pcm)
        await until_heard(watcher, counted(range(6)))
        assert {body["speakerId"] for body in watcher.finals()} == {"maria"}


async def until_subscribed(bot: Bot, identity: str) -> None:
    """The bot has the microphone's track and audio flows."""
    async with asyncio.timeout(15):
        while True:
            person = bot.room.remote_participants.get(identity)
            publications = person.track_publications.values() if person else ()
            if any(one.track is not None for one in publications):
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # until its first frames arrive


async def test_the_last_words_before_a_goodbye_are_kept(
    livekit_server: LiveKitServer, bot: Bot, slug: str
) -> None:
    token = room_token(livekit_server, slug, "aiko")
    async with open_robot(livekit_server.url, token, microphone=False) as watcher:
        token = room_token(livekit_server, slug, "maria")
        async with open_robot(livekit_server.url, token) as speaker:
            await asyncio.wait_for(speaker.heard.wait(), 10)
            await speaker.say(words(range(5)).pcm)
            await asyncio.sleep(0.3)  # the network's and the encoder's share
        await until_heard(watcher, counted(range(5)))
        left = [record for record in bot.records("participant") if record["identity"] == "maria"]
        assert left[0]["left_at"] is not None


async def test_of_two_bots_the_one_without_the_lease_leaves(
    livekit_server: LiveKitServer, bot: Bot, gladia: GladiaStandIn, tmp_path: Path, slug: str
) -> None:
    settings = settings_for(livekit_server, gladia, tmp_path)
    async with open_bot(livekit_server, settings, slug, identity="newer", epoch=2) as newer:
        async with asyncio.timeout(10):
            for _ in count():
                if bot.shutdowns:
                    break
                await asyncio.sleep(0.05)
        assert bot.shutdowns == ["duplicate"]
        assert bot.left == ["bot"]
        assert newer.shutdowns == []
