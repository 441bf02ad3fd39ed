"""A lane from PCM to events: what is sent, what is not, and that nothing is lost at its edges.

The far side is the Gladia stand-in, which hears the numbers that are hidden in the audio.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from agent.gladia.live import GladiaAccount
from agent.gladia.slots import SessionSlots
from agent.lane import Ears, Lane
from agent.vad import NativeVad, SileroVad, Vad
from core.gladia.events import Event, Final, Interim, StateChanged
from core.gladia.options import GladiaOptions
from dev import watermark
from dev.gladia import GladiaStandIn
from dev.watermark import Recording

FRAME = 1536


@dataclass
class Heard:
    """What a lane told its owner."""

    lane: Lane
    events: list[Event] = field(default_factory=list)
    alarms: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def note_alarm(self) -> None:
        self.alarms += 1
        self.changed.set()

    def numbers(self) -> list[tuple[int, int]]:
        return [
            pair
            for event in self.events
            if isinstance(event, Final)
            for pair in watermark.parse(event.utterance.text)
        ]

    async def until(self, enough: Callable[["Heard"], bool]) -> None:
        async with asyncio.timeout(20):
            while not enough(self):
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def listening(
    gladia: GladiaStandIn, state_dir: Path, make_vad: Callable[[], Vad] = NativeVad
) -> AsyncIterator[Heard]:
    """A running lane; it is drained at the end."""
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        account = GladiaAccount(api_key=gladia.api_key, base_url=gladia.base_url, http=http)
        slots = SessionSlots(state_dir / "slots", 30)
        options = GladiaOptions(languages=("en",))
        ears = Ears(account=account, slots=slots, options=options, make_vad=make_vad)
        heard: Heard
        lane = Lane(
            ears=ears,
            utterance_prefix="p",
            metadata={},
            on_event=lambda event: heard.add(event),
            on_deaf=lambda: heard.note_alarm(),
        )
        heard = Heard(lane)
        tasks.create_task(lane.run(), name="lane")
        yield heard
        await lane.drain(20)


async def speak(
    lane: Lane, recording: Recording, position: int = 0, frame: int = FRAME, speed: float = 8.0
) -> int:
    """Pushes a recording faster than it sounds; returns the position after it."""
    for start in range(0, len(recording.pcm), frame):
        pcm = recording.pcm[start : start + frame]
        lane.push(position + start, pcm.tobytes())
        await asyncio.sleep(len(pcm) / 16000 / speed)
    return position + len(recording.pcm)


def counted(first: int, last: int, **options: float) -> Recording:
    return watermark.encode(range(first, last), speaker=3, **options)  # type: ignore[arg-type]  # pause_every is an int


@pytest.mark.parametrize("make_vad", [NativeVad, SileroVad])
async def test_every_word_arrives_once_in_its_place(
    gladia: GladiaStandIn, state_dir: Path, make_vad: Callable[[], Vad]
) -> None:
    recording = watermark.encode(range(24), speaker=3, pause_every=6, pause_s=2.0)
    async with listening(gladia, state_dir, make_vad) as heard:
        await speak(heard.lane, recording)
    assert heard.numbers() == [(3, number) for number in range(24)]
    assert set(gladia.heard().values()) == {1}
    for event in heard.events:
        if isinstance(event, Final):
            first = watermark.parse(event.utterance.text)[0][1]
            truth = recording.marks[first].start_s
            assert event.utterance.words[0].start_position / 16000 == pytest.approx(truth, abs=0.06)
            assert {word.confidence for word in event.utterance.words} == {1.0}, "clipped"
    counts = heard.lane.counts
    assert counts.heard == len(recording.pcm)
    assert counts.sent < 0.9 * counts.heard, "pauses cost nothing"


@pytest.mark.parametrize("frame", [160, 512, 700, 1600, 16001])
async def test_any_frame_size_will_do(gladia: GladiaStandIn, state_dir: Path, frame: int) -> None:
    recording = watermark.encode(range(8), speaker=3)
    async with listening(gladia, state_dir) as heard:
        await speak(heard.lane, recording, frame=frame, speed=50)
    assert heard.numbers() == [(3, number) for number in range(8)]


async def test_silence_opens_no_session(gladia: GladiaStandIn, state_dir: Path) -> None:
    noise = np.random.default_rng(5).normal(0, 60, 16000 * 5).astype(np.int16)
    async with listening(gladia, state_dir) as heard:
        await speak(heard.lane, Recording(np.zeros(16000 * 5, np.int16), 16000, ()), speed=100)
        await speak(heard.lane, Recording(noise, 16000, ()), position=16000 * 5, speed=100)
        assert not heard.lane.is_open
        assert heard.lane.counts.sent == 0
    assert gladia.posts == []


async def test_shutting_finishes_what_was_spoken_at_once(
    gladia: GladiaStandIn, state_dir: Path
) -> None:
    """Muted in mid-sentence: the words before come as a final, without waiting for silence."""
    recording = watermark.encode(range(4), speaker=3, tail_s=0.0)
    async with listening(gladia, state_dir) as heard:
        end = await speak(heard.lane, recording)
        assert heard.lane.is_open
        heard.lane.shut()
        assert not heard.lane.is_open
        await heard.until(lambda heard: len(heard.numbers()) == 4)
        after = watermark.encode(range(4, 8), speaker=3)
        await speak(heard.lane, after, position=end + 160_000)
    assert heard.numbers() == [(3, number) for number in range(8)]
    fifth = next(e for e in heard.events if isinstance(e, Final) and "d4" in e.utterance.text)
    truth = end + 160_000 + after.marks[0].start_s * 16000
    assert fifth.utterance.words[0].start_position == pytest.approx(truth, abs=1000)


async def test_draining_in_mid_word_keeps_the_words_before(
    gladia: GladiaStandIn, state_dir: Path
) -> None:
    recording = watermark.encode(range(5), speaker=3, tail_s=0.0)
    async with listening(gladia, state_dir) as heard:
        await speak(heard.lane, recording)
    assert heard.numbers() == [(3, number) for number in range(5)]
    states = [event.state for event in heard.events if isinstance(event, StateChanged)]
    assert states[-1] == "done"
    assert gladia.open_sessions() == []


async def test_voice_without_words_is_an_alarm_and_a_new_session(
    gladia: GladiaStandIn, state_dir: Path
) -> None:
    """Gladia acknowledges everything and recognises nothing, which looks like silence."""
    hum = watermark.encode(range(40), speaker=3, period_s=0.4)
    swapped = hum.pcm.astype(np.int32)[::-1]  # a voice, no readable mark
    async with listening(gladia, state_dir) as heard:
        await speak(heard.lane, Recording(swapped.astype(np.int16), 16000, ()), speed=8)
        await heard.until(lambda heard: heard.alarms > 0)
        assert heard.lane.counts.deaf_alarms == heard.alarms
        assert heard.lane.status("ann").state in {"deaf", "reconnecting"}
        said = watermark.encode(range(5), speaker=3)
        await speak(heard.lane, said, position=len(swapped))
        await heard.until(lambda heard: any(isinstance(e, Interim | Final) for e in heard.events))
        assert heard.lane.status("ann").state == "live"
    assert len(gladia.sessions) >= 2
