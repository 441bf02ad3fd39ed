"""The robots are the measure of all live tests, so they are measured first."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from livekit import rtc

from dev import watermark
from dev.livekit import LiveKitServer
from dev.robot import SAMPLE_RATE, open_robot

pytestmark = pytest.mark.live


@pytest.mark.parametrize("stall_s", [0.0, 0.8], ids=["steady", "stalled"])
async def test_what_it_says_arrives_whole_and_when_it_says(
    livekit_server: LiveKitServer, slug: str, stall_s: float
) -> None:
    """Also where the machine stood still for a moment: that makes a hole, and it says so."""
    recording = watermark.encode(range(10), speaker=3)
    listener_token = livekit_server.token(slug, "listener")
    tracks: asyncio.Queue[rtc.Track] = asyncio.Queue()
    async with (
        open_robot(livekit_server.url, listener_token, microphone=False, listens=True) as listener,
        asyncio.timeout(30),
    ):
        listener.room.on("track_subscribed", lambda track, *_: tracks.put_nowait(track))
        async with open_robot(livekit_server.url, livekit_server.token(slug, "talker")) as talker:
            stream = rtc.AudioStream.from_track(
                track=await tracks.get(), sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=50
            )
            decoder, first_at = watermark.Decoder(), None
            marks: list[watermark.Mark] = []
            await talker.heard.wait()
            speaking = talker.start_saying(recording.pcm)
            async for event in stream:
                first_at = first_at or datetime.now(UTC) - timedelta(milliseconds=50)
                if len(marks) == 4:
                    time.sleep(stall_s)  # noqa: ASYNC251 - the whole loop stands still
                    stall_s = 0.0
                marks += decoder.feed(np.frombuffer(event.frame.data, np.int16))
                if speaking.done() and marks[-1].number == recording.marks[-1].number:
                    break
            await stream.aclose()
            said = speaking.result()
    assert first_at is not None
    missing = set(range(10)) - {mark.number for mark in marks}
    assert len(missing) <= len(said.stalls)
    for mark in marks:
        truth = said.at(recording.marks[mark.number].start_s)
        late = first_at + timedelta(seconds=mark.start_s) - truth
        assert abs(late) < timedelta(milliseconds=250)


async def test_leaving_does_not_wait_for_what_is_unsaid(
    livekit_server: LiveKitServer, slug: str
) -> None:
    hour = np.zeros(3600 * SAMPLE_RATE, np.int16)
    async with asyncio.timeout(20):
        async with open_robot(livekit_server.url, livekit_server.token(slug, "talker")) as talker:
            speaking = talker.start_saying(hour)
            queued = talker.start_saying(hour)
            await asyncio.sleep(0.1)
        assert speaking.cancelled()
        assert queued.cancelled()


async def test_messages_and_captions_are_noted(livekit_server: LiveKitServer, slug: str) -> None:
    async with (
        open_robot(livekit_server.url, livekit_server.token(slug, "reader"), microphone=False) as a,
        open_robot(livekit_server.url, livekit_server.token(slug, "writer"), microphone=False) as b,
    ):
        body = b'{"type":"transcript","isFinal":true}'
        await b.room.local_participant.publish_data(
            body, topic="transcript", destination_identities=["reader"]
        )
        await a.messages.until(lambda items: len(items) == 1)
        assert a.finals() == [{"type": "transcript", "isFinal": True}]
        await b.room.local_participant.send_text(
            "hello", topic="lk.transcription", attributes={"lk.transcription_final": "true"}
        )
        [caption] = await a.captions.until(lambda items: len(items) == 1)
        assert (caption.text, caption.sender, caption.is_final) == ("hello", "writer", True)
