"""The publisher's order and persistence, towards a room that does not always take what it gets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from agent import publisher as publisher_module
from agent.clock import SessionClock
from agent.publisher import FINAL_TRIES, Publisher
from core.errors import ProviderError
from core.ids import Identity, Slug, UtteranceId
from core.transcript import Segment
from core.wire import Insight

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Room:
    """A far side that refuses the first `refusals` messages of a topic, or is not reachable."""

    def __init__(self, refusals: int = 0, *, reachable: bool = True) -> None:
        self.refusals = refusals
        self.reachable = asyncio.Event()
        if reachable:
            self.reachable.set()
        self.sent: list[dict[str, Any]] = []
        self.captions: list[Segment] = []
        self.changed = asyncio.Event()

    async def send(self, topic: str, payload: bytes) -> None:
        await self.reachable.wait()
        if topic == "transcript" and self.refusals:
            self.refusals -= 1
            raise ProviderError("not now", retryable=True)
        self.sent.append(json.loads(payload))
        self.changed.set()

    async def caption(self, segment: Segment) -> None:
        await self.reachable.wait()
        self.captions.append(segment)
        self.changed.set()

    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "transcript"]

    async def until_captioned(self, text: str) -> None:
        async with asyncio.timeout(10):
            while not any(one.text == text for one in self.captions):
                self.changed.clear()
                await self.changed.wait()


class Bus:
    def __init__(self) -> None:
        self.types: list[str] = []

    def publish(self, _slug: str, payload: bytes) -> None:
        self.types.append(json.loads(payload)["type"])


@asynccontextmanager
async def publishing(room: Room, bus: Bus | None = None) -> AsyncIterator[Publisher]:
    publisher = Publisher(sink=room, slug=Slug("room"), bus=bus, clock=SessionClock.start())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run(), name="publisher")
        yield publisher
        await publisher.drain(5)
        assert running.done() or publisher.finals_waiting == 0


def line(
    text: str, *, utterance: str = "", rev: int = 1, final: bool = True, **more: Any
) -> Segment:
    return Segment(
        slug=Slug("room"),
        utterance_id=UtteranceId(utterance or text),
        rev=rev,
        is_final=final,
        text=text,
        identity=Identity("ann"),
        name="Ann",
        started_at=AT,
        ended_at=AT,
        **more,
    )


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "RETRY_S", 0.01)


async def test_a_refused_final_is_tried_again_and_keeps_its_place() -> None:
    room, bus = Room(refusals=2), Bus()
    async with publishing(room, bus) as publisher:
        publisher.transcript(line("one"))
        publisher.transcript(line("two"))
    assert room.texts() == ["one", "two"]
    assert [one.text for one in room.captions] == ["one", "two"]
    assert publisher.counts.failed == 2
    assert publisher.counts.finals_lost == 0
    assert bus.types.count("transcript") == 2, "viewers outside get it once, at the first try"


async def test_a_final_that_nobody_takes_does_not_stop_the_next() -> None:
    room = Room(refusals=FINAL_TRIES)
    async with publishing(room) as publisher:
        publisher.transcript(line("poison"))
        publisher.transcript(line("fine"))
    assert room.texts() == ["fine"]
    assert publisher.counts.finals_lost == 1


async def test_a_refused_interim_is_not_repeated() -> None:
    room = Room(refusals=1)
    async with publishing(room) as publisher:
        publisher.transcript(line("go", utterance="p-1", final=False))
        publisher.transcript(line("good", utterance="p-1", rev=2))
        await room.until_captioned("good")
    assert room.texts() == ["good"]


async def test_while_the_room_blocks_interims_are_replaced_and_finals_wait() -> None:
    room = Room(reachable=False)
    async with publishing(room) as publisher:
        publisher.transcript(line("a", utterance="p-1", final=False))
        await asyncio.sleep(0)
        for rev in range(2, 50):
            publisher.transcript(line(f"a{rev}", utterance="p-1", rev=rev, final=False))
        for number in range(20):
            publisher.transcript(line(f"n{number}"))
        assert publisher.finals_waiting == 20
        room.reachable.set()
        await room.until_captioned("a49")
    assert room.texts() == [*(f"n{number}" for number in range(20)), "a49"]


async def test_draining_drops_interims_sends_finals_and_the_last_insight() -> None:
    room = Room()
    async with publishing(room) as publisher:
        publisher.transcript(line("half", utterance="p-1", final=False))
        publisher.transcript(line("whole"))
        publisher.insights(Insight(title="T", current_topic="C", topics=()))
    assert room.texts() == ["whole"]
    assert "insights" in {message["type"] for message in room.sent}


async def test_draining_into_a_dead_room_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(reachable=False)
    publisher = Publisher(sink=room, slug=Slug("room"), bus=None, clock=SessionClock.start())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run(), name="publisher")
        publisher.transcript(line("one"))
        await asyncio.sleep(0)
        await publisher.drain(0.05)
        running.cancel()
    assert "not published" in caplog.text
    assert "one" not in caplog.text, "no transcript text in a log"


async def test_a_gap_is_a_message_but_not_a_caption() -> None:
    room = Room()
    async with publishing(room) as publisher:
        publisher.transcript(line("", utterance="p-gap1", kind="gap", reason="buffer_full"))
    assert [message.get("kind") for message in room.sent if message["type"] == "transcript"] == [
        "gap"
    ]
    assert room.captions == []


async def test_status_is_told_without_being_asked() -> None:
    room = Room()
    async with publishing(room) as publisher:
        publisher.room_state("live")
        async with asyncio.timeout(5):
            while not room.sent:
                room.changed.clear()
                await room.changed.wait()
    assert room.sent[0]["type"] == "status"
    assert room.sent[0]["state"] == "live"
