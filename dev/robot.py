"""A participant without a person: joins a room, speaks given audio, and notes what it receives.

It knows the truth of what it said and when, to the sample, so that a test can compare.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from livekit import rtc

from core.wire import CAPTION_TOPIC

Pcm = npt.NDArray[np.int16]
T = TypeVar("T")

SAMPLE_RATE: Final = 16000
_FRAME: Final = SAMPLE_RATE // 20
"""Samples in 50 ms: what is handed over at a time."""
_FRAME_S: Final = _FRAME / SAMPLE_RATE
_AHEAD_S: Final = 0.3
"""Handed over before it is due, so that a busy Python does not make the sound stutter: the source
paces itself in a thread of its own."""
_GOODBYE_S: Final = 10.0
_SILENCE: Final = np.zeros(_FRAME, np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One piece of audio that a robot spoke."""

    label: str
    started_at: datetime
    """UTC time at which its first sample was captured."""
    duration_s: float
    stalls: tuple[tuple[float, float], ...] = ()
    """(offset, seconds) of each hole that a machine too busy to go on made in it."""

    @property
    def ended_at(self) -> datetime:
        return self.at(self.duration_s)

    def at(self, offset_s: float) -> datetime:
        """When the sample at `offset_s` was captured."""
        stalled_s = sum(length_s for at_s, length_s in self.stalls if at_s <= offset_s)
        return self.started_at + timedelta(seconds=offset_s + stalled_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One text stream on LiveKit's own caption topic."""

    sender: str
    """Identity on whose behalf it came."""
    text: str
    attributes: dict[str, str]

    @property
    def is_final(self) -> bool:
        return self.attributes.get("lk.transcription_final") == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One JSON data message."""

    topic: str
    body: dict[str, Any]
    received_at: datetime


class Inbox(Generic[T]):
    """What arrived so far, in order, and a way to wait for more."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._changed = asyncio.Event()

    def add(self, item: T) -> None:
        self.items.append(item)
        self._changed.set()

    async def until(self, enough: Callable[[list[T]], bool], timeout_s: float = 30.0) -> list[T]:
        """All items, once `enough(items)` holds.

        Raises:
            TimeoutError: after `timeout_s`; the note lists what did arrive.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not enough(self.items):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as exc:
            exc.add_note(f"received {len(self.items)}: {self.items[-20:]}")
            raise
        return self.items


@dataclass(slots=True)
class _Utterance:
    pcm: Pcm
    label: str
    done: "asyncio.Future[Said]"


class Robot:
    """One connected participant; made by `open_robot`."""

    def __init__(self, room: rtc.Room, tasks: asyncio.TaskGroup) -> None:
        self.room = room
        self.messages: Inbox[Message] = Inbox()
        self.captions: Inbox[Caption] = Inbox()
        self.said: list[Said] = []
        self.heard = asyncio.Event()
        """Set once somebody is subscribed to its microphone: what it says then is not lost."""
        self._tasks = tasks
        self._source: rtc.AudioSource | None = None
        self._publication: rtc.LocalTrackPublication | None = None
        self._queue: asyncio.Queue[_Utterance] = asyncio.Queue(maxsize=100)
        room.on("data_received", self._note_data)
        room.on("local_track_subscribed", lambda _track: self.heard.set())
        room.register_text_stream_handler(CAPTION_TOPIC, self._note_caption)

    @property
    def identity(self) -> str:
        return self.room.local_participant.identity

    @property
    def track_sid(self) -> str:
        """SID of its microphone."""
        assert self._publication is not None
        return self._publication.sid

    async def publish_microphone(self) -> None:
        """From now on it sends audio all the time, silence while it says nothing."""
        assert self._source is None
        self.heard.clear()
        self._source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=1000)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        self._publication = await self.room.local_participant.publish_track(track, options)
        self._tasks.create_task(self._capture(self._source), name=f"microphone:{self.identity}")

    async def unpublish_microphone(self) -> None:
        """Takes the microphone away; `publish_microphone` gives it a new one."""
        assert self._publication is not None
        self._source = None
        await self.room.local_participant.unpublish_track(self._publication.sid)

    async def set_muted(self, muted: bool) -> None:
        assert self._publication is not None
        assert self._publication.track is not None
        track = self._publication.track
        assert isinstance(track, rtc.LocalAudioTrack)
        track.mute() if muted else track.unmute()

    async def say(self, pcm: Pcm, label: str = "") -> Said:
        """Speaks 16 kHz mono in real time; returns just before its last sample sounds."""
        done: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Utterance(pcm, label, done))
        return await done

    def start_saying(self, pcm: Pcm, label: str = "") -> "asyncio.Task[Said]":
        """The same beside other things; the robot owns the task."""
        return self._tasks.create_task(self.say(pcm, label), name=f"say:{self.identity}:{label}")

    async def leave(self) -> None:
        """Says goodbye to the room; what it has not said yet stays unsaid."""
        self._source = None  # ends its microphone task
        while not self._queue.empty():
            self._queue.get_nowait().done.cancel()
        await hang_up(self.room)

    def transcripts(self) -> list[dict[str, Any]]:
        """Bodies of the transcript messages so far, in order of arrival."""
        return [item.body for item in self.messages.items if item.topic == "transcript"]

    def finals(self) -> list[dict[str, Any]]:
        return [body for body in self.transcripts() if body["isFinal"]]

    async def _capture(self, source: rtc.AudioSource) -> None:
        """Keeps the source 0.3 s ahead of the clock; its first sample sounds at once."""
        due_s, due_at = time.monotonic(), datetime.now(UTC)
        utterance, offset = None, 0
        stalls: list[tuple[float, float]] = []
        while source is self._source:
            if (stalled_s := time.monotonic() - due_s) > 0:
                due_s, due_at = due_s + stalled_s, due_at + timedelta(seconds=stalled_s)
                stalls.append((offset / SAMPLE_RATE, stalled_s))
            if utterance is None and not self._queue.empty():
                utterance, offset = self._queue.get_nowait(), 0
                said_at, stalls = due_at, []
            frame = _SILENCE
            if utterance is not None:
                frame = utterance.pcm[offset : offset + _FRAME]
                offset += _FRAME
            await source.capture_frame(_audio_frame(frame))
            due_s, due_at = due_s + _FRAME_S, due_at + timedelta(seconds=_FRAME_S)
            if utterance is not None and offset >= len(utterance.pcm):
                self._finish(utterance, said_at, stalls)
                utterance = None
            await asyncio.sleep(due_s - _AHEAD_S - time.monotonic())
        if utterance is not None:
            utterance.done.cancel()
        await source.aclose()

    def _finish(
        self, utterance: _Utterance, said_at: datetime, stalls: list[tuple[float, float]]
    ) -> None:
        said = Said(
            label=utterance.label,
            started_at=said_at,
            duration_s=len(utterance.pcm) / SAMPLE_RATE,
            stalls=tuple(stalls),
        )
        self.said.append(said)
        if not utterance.done.done():
            utterance.done.set_result(said)

    def _note_data(self, packet: rtc.DataPacket) -> None:
        body = json.loads(packet.data)
        self.messages.add(
            Message(topic=packet.topic or "", body=body, received_at=datetime.now(UTC))
        )

    def _note_caption(self, reader: rtc.TextStreamReader, sender: str) -> None:
        self._tasks.create_task(self._read_caption(reader, sender), name="caption")

    async def _read_caption(self, reader: rtc.TextStreamReader, sender: str) -> None:
        try:
            text = await reader.read_all()
        except rtc.StreamError:
            return  # the connection went down in mid-stream
        attributes = dict(reader.info.attributes or {})
        self.captions.add(Caption(sender=sender, text=text, attributes=attributes))


@asynccontextmanager
async def open_robot(
    url: str, token: str, *, microphone: bool = True, listens: bool = False
) -> AsyncIterator[Robot]:
    """A robot in the room of `token`, with an open microphone; it hears others if it `listens`."""
    room = rtc.Room()
    async with asyncio.TaskGroup() as tasks:
        robot = Robot(room, tasks)
        await room.connect(url, token, rtc.RoomOptions(auto_subscribe=listens))
        try:
            if microphone:
                await robot.publish_microphone()
            yield robot
        finally:
            await robot.leave()


async def hang_up(room: rtc.Room) -> None:
    """Leaves a room for good.

    Where its server went away nobody answers the SDK's goodbye, and its reader would wait for ever.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_S):
            await room.disconnect()
    reader: asyncio.Task[None] | None = getattr(room, "_task", None)
    if reader is not None and not reader.done():
        reader.cancel()
        await asyncio.wait([reader])


def _audio_frame(samples: Pcm) -> rtc.AudioFrame:
    if len(samples) < _FRAME:
        samples = np.concatenate((samples, _SILENCE[len(samples) :]))
    return rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, _FRAME)
