"""A speaker in a real room: what a participant says comes out once, under the right time.

Robots count by audio watermark; the bot hears them through WebRTC, the stand-in reads the numbers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from livekit import api, rtc

from agent.clock import SessionClock
from agent.delivery import Delivery
from agent.gladia.live import GladiaAccount
from agent.gladia.slots import SessionSlots
from agent.journal import Journal
from agent.lane import Ears
from agent.speaker import Speaker, SpeakerContext
from agent.vad import NativeVad
from core.gladia.options import GladiaOptions
from core.ids import Identity, Slug, TrackSid
from core.transcript import Segment
from core.wire import SpeakerStatus
from dev import watermark
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer
from dev.robot import Robot, Said, open_robot
from dev.watermark import Recording
from tests.frozen import frozen

pytestmark = pytest.mark.live

TIME_ERROR_S = 0.1


@dataclass
class Heard:
    """What came out of one speaker."""

    finals: list[Segment] = field(default_factory=list)
    statuses: list[SpeakerStatus] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    speaker: Speaker | None = None

    def transcript(self, segment: Segment) -> None:
        if segment.is_final:
            self.finals.append(segment)
        self.changed.set()

    def speaker_state(self, status: SpeakerStatus) -> None:
        self.statuses.append(status)
        self.changed.set()

    def forget_speaker(self, _identity: str) -> None:
        self.changed.set()

    def numbers(self) -> list[int]:
        ordered = sorted(self.finals, key=lambda segment: segment.started_at)
        return [number for one in ordered for _, number in watermark.parse(one.text)]

    async def until(self, count: int, timeout_s: float = 30) -> None:
        """At least `count` numbers were heard."""
        async with asyncio.timeout(timeout_s):
            while len(self.numbers()) < count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def hearing(
    server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> AsyncIterator[Heard]:
    """A bot that transcribes ann."""
    heard = Heard()
    journal = Journal(state_dir / "journal.sqlite")
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        ears = Ears(
            account=GladiaAccount(api_key=gladia.api_key, base_url=gladia.base_url, http=http),
            slots=SessionSlots(state_dir / "slots", 30),
            options=GladiaOptions(languages=("en",)),
            make_vad=NativeVad,
        )
        context = SpeakerContext(
            slug=Slug(slug),
            clock=SessionClock.start(),
            ears=ears,
            delivery=Delivery(recorder=journal, lines=heard),
            statuses=heard,
        )
        speaker = Speaker(identity=Identity("ann"), name="Ann", user_id=None, context=context)
        heard.speaker = speaker
        room = _bot(speaker)
        tasks.create_task(speaker.run(), name="speaker")
        await room.connect(server.url, _token(server, slug))
        try:
            yield heard
            await speaker.drain(15)
        finally:
            await room.disconnect()
            journal.close()


def _bot(speaker: Speaker) -> rtc.Room:
    room = rtc.Room()

    def attach(track: rtc.Track, publication: rtc.RemoteTrackPublication, who: object) -> None:
        assert isinstance(track, rtc.RemoteAudioTrack)
        speaker.attach(track, publication)

    def detach(_track: object, publication: rtc.RemoteTrackPublication, _who: object) -> None:
        speaker.detach(TrackSid(publication.sid))

    room.on("track_subscribed", attach)
    room.on("track_unsubscribed", detach)
    room.on("track_muted", lambda _, pub: speaker.set_muted(TrackSid(pub.sid), muted=True))
    room.on("track_unmuted", lambda _, pub: speaker.set_muted(TrackSid(pub.sid), muted=False))
    return room


def _token(server: LiveKitServer, slug: str) -> str:
    grants = api.VideoGrants(room_join=True, room=slug, can_publish=False)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity("agent-bot")
    return token.with_kind("agent").with_grants(grants).to_jwt()


def count(first: int, last: int, pause_every: int = 0) -> Recording:
    return watermark.encode(range(first, last), speaker=0, pause_every=pause_every, pause_s=1.5)


def check_times(heard: Heard, recording: Recording, said: Said) -> None:
    """Each word within 100 ms of the moment at which its sample was handed to the microphone."""
    truth = {mark.number: said.at(mark.start_s) for mark in recording.marks}
    errors = {
        number: (word.started_at - truth[number]).total_seconds()
        for segment in heard.finals
        for word in segment.words
        for _, number in watermark.parse(word.text)
        if number in truth
    }
    assert errors
    assert max(abs(error) for error in errors.values()) < TIME_ERROR_S, errors


async def spoken(robot: Robot, recording: Recording) -> Said:
    async with asyncio.timeout(20):
        await robot.heard.wait()
    return await robot.say(recording.pcm)


@asynccontextmanager
async def behind_a_deep_buffer(
    server: LiveKitServer,
    slug: str,
    gladia: GladiaStandIn,
    state_dir: Path,
    recording: Recording,
) -> AsyncIterator[tuple[Heard, Robot, Said]]:
    """Ann has said 16 words, of which a jitter buffer of 0.4 s holds back the last.

    The server stood still for that long between the first eight and the others.
    """
    async with (
        hearing(server, slug, gladia, state_dir) as heard,
        open_robot(server.url, server.token(slug, "ann")) as ann,
        asyncio.timeout(60),
    ):
        await ann.heard.wait()
        speaking = ann.start_saying(recording.pcm)
        await heard.until(8)
        with frozen([server.pid]):
            await asyncio.sleep(0.4)
        yield heard, ann, await speaking


async def test_words_arrive_once_and_at_their_time(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    recording = count(0, 16, pause_every=8)
    async with (
        hearing(livekit_server, slug, gladia, state_dir) as heard,
        open_robot(livekit_server.url, livekit_server.token(slug, "ann")) as ann,
    ):
        said = await spoken(ann, recording)
        await heard.until(16)
        assert heard.numbers() == list(range(16))
        check_times(heard, recording, said)
        assert {segment.track_sid for segment in heard.finals} == {ann.track_sid}
        assert {(one.identity, one.name) for one in heard.finals} == {("ann", "Ann")}
    assert set(gladia.heard().values()) == {1}
    assert heard.statuses[0].state == "idle"
    assert "live" in {status.state for status in heard.statuses}


async def test_times_hold_while_the_jitter_buffer_grows(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    """Packets that came late once are expected late from then on: the buffer holds 0.3 s of them.

    The samples go on arriving at their even pace, so only the buffer itself can tell.
    """
    recording = count(0, 16, pause_every=8)
    async with behind_a_deep_buffer(livekit_server, slug, gladia, state_dir, recording) as (
        heard,
        _,
        said,
    ):
        await heard.until(16)
        check_times(heard, recording, said)
        await asyncio.sleep(2)  # a loss would be certain by now
        assert [segment.reason for segment in heard.finals if segment.kind == "gap"] == []


async def test_a_microphone_that_comes_back_goes_on_in_the_same_lane(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    """An AudioStream left open would carry the new track's audio too: each word twice."""
    before, after = count(0, 6), count(6, 12)
    async with (
        hearing(livekit_server, slug, gladia, state_dir) as heard,
        open_robot(livekit_server.url, livekit_server.token(slug, "ann")) as ann,
    ):
        await spoken(ann, before)
        await ann.unpublish_microphone()
        await heard.until(6)
        await asyncio.sleep(1.0)
        await ann.publish_microphone()
        said = await spoken(ann, after)
        await heard.until(12)
        check_times(heard, after, said)
    assert heard.numbers() == list(range(12))
    assert set(gladia.heard().values()) == {1}
    assert len({segment.utterance_id.rsplit("-", 1)[0] for segment in heard.finals}) == 1
    assert len({segment.track_sid for segment in heard.finals}) == 2


async def test_a_second_microphone_is_heard_beside_the_first(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    async with (
        hearing(livekit_server, slug, gladia, state_dir) as heard,
        open_robot(livekit_server.url, livekit_server.token(slug, "ann")) as ann,
    ):
        source = rtc.AudioSource(16000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("second", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await ann.room.local_participant.publish_track(track, options)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spoken(ann, count(0, 8)), name="first")
            pcm = watermark.encode(range(100, 108), speaker=1, lead_s=1.5).pcm
            for start in range(0, len(pcm) - 160, 160):
                frame = rtc.AudioFrame(pcm[start : start + 160].tobytes(), 16000, 1, 160)
                await source.capture_frame(frame)
        await heard.until(16)
        assert sorted(heard.numbers()) == [*range(8), *range(100, 108)]
        assert len({segment.track_sid for segment in heard.finals}) == 2
        await source.aclose()
    assert set(gladia.heard().values()) == {1}


async def test_mute_ends_the_sentence_and_costs_nothing(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    async with (
        hearing(livekit_server, slug, gladia, state_dir) as heard,
        open_robot(livekit_server.url, livekit_server.token(slug, "ann")) as ann,
    ):
        await spoken(ann, watermark.encode(range(5), speaker=0, tail_s=0.3))
        await ann.set_muted(True)
        await heard.until(5)
        billed_s = gladia.billed_s
        await ann.say(count(100, 104).pcm)
        assert gladia.billed_s < billed_s + 1.0, "no more than the zeros that end a sentence"
        await ann.set_muted(False)
        recording = count(5, 10)
        said = await ann.say(recording.pcm)
        await heard.until(10)
        check_times(heard, recording, said)
    assert heard.numbers() == list(range(10))


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda ann: ann.set_muted(True), id="mute"),
        pytest.param(Robot.unpublish_microphone, id="unpublish"),
        pytest.param(Robot.leave, id="leave"),
    ],
)
async def test_what_is_under_way_at_the_end_is_heard(
    end: Callable[[Robot], Awaitable[None]],
    livekit_server: LiveKitServer,
    slug: str,
    gladia: GladiaStandIn,
    state_dir: Path,
) -> None:
    """Signalling overtakes sound: the jitter buffer still holds 0.4 s, the whole last word."""
    recording = watermark.encode(
        range(16), speaker=0, pause_every=8, pause_s=1.5, period_s=0.5, tail_s=0.2
    )
    async with behind_a_deep_buffer(livekit_server, slug, gladia, state_dir, recording) as (
        heard,
        ann,
        _,
    ):
        await end(ann)
        await heard.until(16)
    assert heard.numbers() == list(range(16))


async def test_a_microphone_that_comes_back_at_once_is_heard_once(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    """While sound of the old track would still be awaited; its stream may carry the new one's."""
    before = count(0, 16, pause_every=8)
    async with behind_a_deep_buffer(livekit_server, slug, gladia, state_dir, before) as (
        heard,
        ann,
        _,
    ):
        await ann.unpublish_microphone()
        await ann.publish_microphone()
        await spoken(ann, watermark.encode(range(16, 24), speaker=0, lead_s=0.1))
        await heard.until(24)
    assert heard.numbers() == list(range(24))
    assert set(gladia.heard().values()) == {1}


async def test_leaving_in_mid_sentence_keeps_the_words_before(
    livekit_server: LiveKitServer, slug: str, gladia: GladiaStandIn, state_dir: Path
) -> None:
    async with hearing(livekit_server, slug, gladia, state_dir) as heard:
        async with open_robot(livekit_server.url, livekit_server.token(slug, "ann")) as ann:
            await spoken(ann, watermark.encode(range(6), speaker=0, tail_s=0.4))
        await heard.until(6)
    assert heard.numbers() == list(range(6))
    assert gladia.open_sessions() == []
