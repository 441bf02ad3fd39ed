"""A speaker who counts into a live transcription, for tests against the stand-in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import aiohttp
import pytest

from agent.gladia.live import GladiaAccount, LiveTranscription
from agent.gladia.slots import SessionSlots
from core.gladia.events import AudioLost, Event, Final, Interim, StateChanged, Utterance
from core.gladia.limits import Limits
from core.gladia.options import GladiaOptions
from dev import watermark
from dev.gladia import GladiaStandIn

FRAME_SAMPLES = 1600
QUICK = Limits(
    ack_timeout_s=1.0, idle_close_s=0.6, degraded_retry_s=0.5, keepalive_s=0.3, buffer_s=20.0
)


@dataclass
class Speaker:
    """Pushes counted words into one LiveTranscription and keeps what comes out."""

    live: LiveTranscription
    standin: GladiaStandIn
    events: list[Event] = field(default_factory=list)
    position: int = 0
    expected: list[int] = field(default_factory=list)
    truth: dict[int, float] = field(default_factory=dict)

    async def count(self, first: int, last: int, *, pace: float = 0.002) -> None:
        """Says the numbers, in frames of 100 ms, faster than real time."""
        recording = watermark.encode(range(first, last + 1), 0, lead_s=0.3, tail_s=0.4)
        for mark in recording.marks:
            self.truth[mark.number] = self.position / 16_000 + mark.start_s
            self.expected.append(mark.number)
        pcm = recording.pcm.tobytes()
        for start in range(0, len(pcm), 2 * FRAME_SAMPLES):
            frame = pcm[start : start + 2 * FRAME_SAMPLES]
            self.live.push_audio(self.position, frame)
            self.position += len(frame) // 2
            await asyncio.sleep(pace)

    def rest(self, seconds: float = 1.0) -> None:
        """The gate closes."""
        self.live.push_silence(8000)
        self.live.pause()
        self.position += round(seconds * 16_000)

    def finals(self) -> list[Utterance]:
        newest: dict[str, Utterance] = {}
        for event in self.events:
            if isinstance(event, Interim | Final):
                newest[event.utterance.utterance_id] = event.utterance
        assert all(utterance.is_final for utterance in newest.values())
        return sorted((u for u in newest.values() if u.text), key=lambda u: u.start_position)

    def has_finals(self, numbers: Sequence[int]) -> bool:
        """Whether all that was said so far is final."""
        texts = [event.utterance.text for event in self.events if isinstance(event, Final)]
        heard = {number for text in texts for _, number in watermark.parse(text)}
        return heard >= {*numbers}

    def heard(self) -> list[int]:
        return [number for u in self.finals() for _, number in watermark.parse(u.text)]

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, StateChanged)]

    def reasons(self) -> set[str | None]:
        return {event.reason for event in self.events if isinstance(event, StateChanged)}

    def assert_intact(self) -> None:
        assert self.heard() == self.expected
        assert not [event for event in self.events if isinstance(event, AudioLost)]
        for utterance in self.finals():
            for word in utterance.words:
                ((_, number),) = watermark.parse(word.text)
                assert word.start_position / 16_000 == pytest.approx(self.truth[number], abs=0.15)


@asynccontextmanager
async def open_speaker(
    standin: GladiaStandIn,
    slots: SessionSlots,
    *,
    limits: Limits = QUICK,
    key: str = "stand-in",
    url: str = "",
    http: aiohttp.ClientSession | None = None,
    metadata: Mapping[str, str] | None = None,
) -> AsyncIterator[Speaker]:
    """A running speaker who talks to this stand-in; drained at the end."""
    events: list[Event] = []
    async with aiohttp.ClientSession() as own, asyncio.TaskGroup() as tasks:
        live = LiveTranscription(
            options=GladiaOptions(),
            account=GladiaAccount(api_key=key, base_url=url or standin.base_url, http=http or own),
            slots=slots,
            utterance_prefix="u",
            metadata=metadata or {"room": "test"},
            on_event=events.append,
            limits=limits,
        )
        running = tasks.create_task(live.run(), name="live")
        yield Speaker(live, standin, events)
        await live.drain(10)
        assert running.done()


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the far side has no event to wait for
            await asyncio.sleep(0.01)


class Seat:
    """A place that nobody transcribes in, and what it is told."""

    def __init__(self, slots: SessionSlots, heard_at: float = 0.0) -> None:
        self.is_taken = False
        self.wishes = 0
        self.place = slots.ask(heard_at=heard_at, granted=self._granted, wanted=self._wanted)

    async def taken(self, timeout_s: float = 10) -> Self:
        await until(lambda: self.is_taken, timeout_s)
        return self

    def _granted(self) -> None:
        self.is_taken = True

    def _wanted(self) -> None:
        self.wishes += 1
