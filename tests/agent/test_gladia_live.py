"""The aiohttp shell against the stand-in: real sockets, real faults."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.gladia.live import GladiaAccount, LiveTranscription
from agent.gladia.slots import SessionSlots
from core.gladia.events import AudioLost, Event, Interim, StateChanged, Usage
from core.gladia.limits import Limits
from core.gladia.options import GladiaOptions
from dev.gladia import GladiaStandIn
from dev.gladia.faults import (
    Acks,
    Drop,
    EarlyFinal,
    Finals,
    Mute,
    RefuseHandshake,
    RefusePost,
    Say,
    Stall,
    When,
)
from dev.gladia.policy import Policy
from tests.agent.gladia_kit import QUICK, Seat, Speaker, open_speaker, until

Speaking = Callable[..., AbstractAsyncContextManager[Speaker]]


@pytest.fixture
def speaking(tmp_path: Path) -> Speaking:
    """Opens a speaker who talks to a stand-in of this policy; drains it at the end."""

    @asynccontextmanager
    async def speaking(
        *, limits: Limits = QUICK, key: str = "stand-in", **policy: Any
    ) -> AsyncIterator[Speaker]:
        slots = SessionSlots(tmp_path / "slots", 30)
        async with (
            GladiaStandIn(policy=Policy(**policy)) as standin,
            open_speaker(standin, slots, limits=limits, key=key) as speaker,
        ):
            yield speaker

    return speaking


async def test_words_come_out_in_order_at_their_times(speaking: Speaking) -> None:
    async with speaking() as speaker:
        await speaker.count(1, 4)
        speaker.rest(3)
        await speaker.count(5, 8)
        await speaker.live.drain(10)
        speaker.assert_intact()
        assert speaker.states() == ["live", "draining", "done"]
        interims = [e.utterance for e in speaker.events if isinstance(e, Interim)]
        assert {u.utterance_id for u in interims} == {u.utterance_id for u in speaker.finals()}
        usage = sum(event.audio_s for event in speaker.events if isinstance(event, Usage))
        assert usage == pytest.approx(speaker.standin.billed_s, abs=0.01)


FAULTS: dict[str, list[tuple[Any, When | None]]] = {
    "reset": [(Drop(how="reset"), When(at_chunk=12))],
    "fin": [(Drop(how="fin"), When(at_chunk=12))],
    "1001": [(Drop(how=1001), When(at_chunk=12))],
    "1009": [(Drop(how=1009), When(at_chunk=12))],
    "1011": [(Drop(how=1011), When(at_chunk=12))],
    "1012": [(Drop(how=1012), When(at_chunk=12))],
    "1000, unasked": [(Drop(how=1000, end_session=True), When(at_chunk=12))],
    "4001": [(Drop(how=4001), When(at_chunk=12))],
    "4403 after open": [(Drop(how="reset", end_session=True), When(at_chunk=12))],
    "4408": [(Drop(how=4408, end_session=True), When(at_chunk=12))],
    "4500": [(Drop(how=4500), When(at_chunk=12))],
    "three resets": [(Drop(how="reset"), When(at_chunk=n)) for n in (3, 5, 7)],
    "handshake 503": [
        (Drop(how="reset"), When(at_chunk=12)),
        (RefuseHandshake(status=503), When(connection=2)),
    ],
    "handshake 403": [
        (Drop(how="reset"), When(at_chunk=12)),
        (RefuseHandshake(status=403), When(connection=2)),
    ],
    "first handshake 500": [(RefuseHandshake(status=500), When(connection=1))],
    "half-open": [(Stall(), When(at_chunk=12, connection=1))],
    "mute": [(Mute(), When(at_chunk=12, connection=1))],
    "acks lost": [(Acks(how="lose", count=3), When(at_chunk=5))],
    "acks late": [(Acks(how="delay", count=5, delay_s=0.4), When(at_chunk=5))],
    "acks doubled": [(Acks(how="double", count=8), When(at_chunk=5))],
    "acks reordered": [(Acks(how="reorder", count=3), When(at_chunk=5))],
    "acks merged": [(Acks(how="merge", count=4), When(at_chunk=5))],
    "chunk refused": [(Acks(how="refuse", count=1), When(at_chunk=9))],
    "post 429": [(RefusePost(status=429, retry_after_s=0.2), None)],
    "post 500": [(RefusePost(status=500), None)],
    "post garbage": [(RefusePost(status=201, body="garbage"), None)],
    "post without created_at": [(RefusePost(status=201, body="no_created_at"), None)],
    "malformed": [(Say(frame="{nonsense"), When(at_chunk=6))],
    "unknown message": [(Say(frame='{"type":"what_is_this"}'), When(at_chunk=6))],
    "missing fields": [(Say(frame='{"type":"transcript","data":{}}'), When(at_chunk=6))],
    "binary": [(Say(frame=b"\x00\x01"), When(at_chunk=6))],
    "huge": [(Say(frame="x" * (5 << 20)), When(at_chunk=6))],
    "double final": [(Finals(how="double"), None)],
    "late interim": [(Finals(how="late_interim"), None)],
    "early final": [(EarlyFinal(), None)],
    "swapped finals": [(Finals(how="swap"), None)],
    "final only by GET": [(Finals(how="only_result"), None)],
}


@pytest.mark.parametrize("name", FAULTS)
async def test_no_fault_loses_or_doubles_a_word(speaking: Speaking, name: str) -> None:
    async with speaking() as speaker:
        for fault, when in FAULTS[name]:
            speaker.standin.faults.add(fault, when=when)
        await speaker.count(1, 4)
        speaker.rest(2)
        await speaker.count(5, 8)
        speaker.rest(2)
        await speaker.live.drain(10)
        assert not speaker.standin.faults.pending(), "the fault did not happen"
        speaker.assert_intact()
        await until(lambda: not speaker.standin.open_sessions())
        assert len(speaker.standin.posts) <= 3


SWITCHES: dict[str, dict[str, Any]] = {
    "keep": {"keep_unacked": True},
    "discard": {"keep_unacked": False},
    "keep, connection": {"keep_unacked": True, "byte_range": "connection"},
    "discard, connection": {"keep_unacked": False, "byte_range": "connection"},
    "inclusive": {"inclusive_end": True},
    "inclusive, connection": {"inclusive_end": True, "byte_range": "connection"},
    "coalesced": {"coalesce_acks": 3},
    "coalesced, discard": {"coalesce_acks": 4, "keep_unacked": False},
    "empty chunks unacknowledged": {"ack_empty_chunk": False},
    "utterance finalised": {"open_utterance": "finalised"},
    "utterance lost": {"open_utterance": "lost"},
    "finals lost": {"finals_during_disconnect": "lost"},
    "ids restart": {"ids_after_resume": "restart"},
    "ids restart, utterance lost": {"ids_after_resume": "restart", "open_utterance": "lost"},
    "start_session": {"start_session_message": True},
    "stranger 4403": {"stranger": "4403"},
    "second socket refused": {"second_socket": "refuse"},
    "slow finals": {"final_delay_s": 0.3, "post_processing_s": 0.3, "slot_freed": "done"},
}


@pytest.mark.parametrize("drop_at", [2, 11])
@pytest.mark.parametrize("name", SWITCHES)
async def test_every_reading_of_the_protocol(speaking: Speaking, name: str, drop_at: int) -> None:
    async with speaking(**SWITCHES[name]) as speaker:
        for chunk in (drop_at, drop_at + 6):
            speaker.standin.faults.add(Drop(how="reset"), when=When(at_chunk=chunk))
        await speaker.count(1, 4)
        speaker.rest(2)
        await speaker.count(5, 8)
        speaker.rest(2)
        await speaker.live.drain(15)
        speaker.assert_intact()


async def test_a_stand_in_that_forgets_its_sessions(speaking: Speaking) -> None:
    async with speaking() as speaker:
        await speaker.count(1, 3)
        await speaker.standin.restart(forget=True)
        await speaker.count(4, 6)
        speaker.rest()
        await speaker.live.drain(10)
        speaker.assert_intact()


async def test_a_bad_key_is_told_at_once(speaking: Speaking) -> None:
    async with speaking(key="wrong") as speaker:
        await speaker.count(1, 1)
        await until(lambda: "gladia_unauthorized" in speaker.reasons())
        await speaker.live.drain(0)
        assert any(isinstance(event, AudioLost) for event in speaker.events)


async def test_the_session_limit_of_the_account_is_a_queue(speaking: Speaking) -> None:
    async with speaking(max_sessions=0, retry_after_s=0.1) as speaker:
        await speaker.count(1, 2)
        await until(lambda: "gladia_busy" in speaker.reasons())
        speaker.standin.policy = Policy(max_sessions=1)
        speaker.rest()
        await speaker.live.drain(10)
        speaker.assert_intact()


async def test_idle_sessions_are_closed_and_reopened(speaking: Speaking) -> None:
    async with speaking() as speaker:
        await speaker.count(1, 2)
        speaker.rest()
        await until(lambda: speaker.states()[-1:] == ["idle"])
        await until(lambda: speaker.standin.slots == 0)
        await speaker.count(3, 4)
        speaker.rest()
        await speaker.live.drain(10)
        assert len(speaker.standin.sessions) == 2
        speaker.assert_intact()


async def test_keep_alive_beats_the_idle_timeout(speaking: Speaking) -> None:
    limits = Limits(keepalive_s=0.2)
    async with speaking(limits=limits, idle_timeout_s=0.6) as speaker:
        await speaker.count(1, 2)
        speaker.rest()
        await asyncio.sleep(1.5)
        await speaker.count(3, 4)
        speaker.rest()
        await speaker.live.drain(10)
        assert "reconnecting" not in speaker.states()
        speaker.assert_intact()


async def test_cancelled_it_stops_its_session(tmp_path: Path) -> None:
    """A forgotten session would hold its slot at Gladia for three hours."""
    async with GladiaStandIn() as standin, aiohttp.ClientSession() as http:
        events: list[Event] = []
        live = LiveTranscription(
            options=GladiaOptions(),
            account=GladiaAccount(api_key="stand-in", base_url=standin.base_url, http=http),
            slots=SessionSlots(tmp_path, 1),
            utterance_prefix="u",
            metadata={},
            on_event=events.append,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(live.run(), name="live")
            await Speaker(live, standin, events).count(1, 2)
            await until(lambda: any(isinstance(event, Interim) for event in events))
            running.cancel()
        await until(lambda: not standin.open_sessions())
        seat = Seat(SessionSlots(tmp_path, 1))
        await seat.taken()
        seat.place.leave()
        assert isinstance(events[-1], StateChanged)


async def test_renewing_replays_into_a_new_session(speaking: Speaking) -> None:
    async with speaking() as speaker:
        await speaker.count(1, 3)
        speaker.live.renew("deaf")
        await speaker.count(4, 6)
        speaker.rest()
        await speaker.live.drain(10)
        assert len(speaker.standin.sessions) == 2
        speaker.assert_intact()
        await until(lambda: not speaker.standin.open_sessions())
