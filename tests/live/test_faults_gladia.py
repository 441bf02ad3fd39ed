"""Whatever Gladia does to us, each spoken number is stored once, in place, or a gap says so.

The whole worker against the stand-in, whose faults strike in the middle of utterances. Scenarios
run at the same time, each in a room of its own; the stand-in knows the room by the metadata.
"""

import asyncio
import signal

import pytest

from dev.gladia import GladiaStandIn
from dev.gladia.faults import (
    Acks,
    Drop,
    EarlyFinal,
    Finals,
    HangHandshake,
    HangPost,
    IgnoreStop,
    Mute,
    RefuseHandshake,
    RefusePost,
    Say,
    Stall,
)
from dev.gladia.policy import Policy
from dev.livekit import LiveKitServer
from dev.processes import Child
from tests.live.counting import Scenario, Trouble, play_all

pytestmark = [pytest.mark.live, pytest.mark.timeout(420)]

FIRST = 2 * 32_000
"""Bytes: two seconds into the first utterance, which lasts four."""
SECOND = 7 * 32_000
"""Bytes: in the middle of the second utterance."""
RECONNECTS = frozenset({"reconnecting"})

STREAM = (
    Scenario(
        name="reset, then fin",
        troubles=(Trouble(Drop(how="reset"), FIRST), Trouble(Drop(how="fin"), SECOND)),
    ),
    Scenario(
        name="1001, then 1011",
        troubles=(Trouble(Drop(how=1001), FIRST), Trouble(Drop(how=1011), SECOND)),
    ),
    Scenario(
        name="1009, then 4500",
        troubles=(Trouble(Drop(how=1009), FIRST), Trouble(Drop(how=4500), SECOND)),
    ),
    Scenario(
        name="4000, then 4404",
        troubles=(Trouble(Drop(how=4000), FIRST), Trouble(Drop(how=4404), SECOND)),
    ),
    Scenario(
        name="over: 4403 after open",
        troubles=(Trouble(Drop(how="reset", end_session=True), FIRST),),
    ),
    Scenario(name="half-open", troubles=(Trouble(Stall(), FIRST),), states=RECONNECTS),
    Scenario(name="mute", troubles=(Trouble(Mute(), FIRST),), states=RECONNECTS),
    Scenario(
        name="acknowledges all, understands nothing",
        troubles=(Trouble(Mute(acknowledges=True), FIRST),),
        words=40,
        states=frozenset({"deaf"}),
    ),
    Scenario(
        name="understands nothing, and few words are said",
        troubles=(Trouble(Mute(acknowledges=True), FIRST),),
        words=40,
        pause_s=6.0,
        gaps=True,
        states=frozenset({"deaf"}),
    ),
    Scenario(
        name="acks late, lost, drop",
        troubles=(
            Trouble(Acks(how="delay", count=10, delay_s=2), FIRST),
            Trouble(Acks(how="lose", count=5), SECOND),
            Trouble(Drop(how="reset"), SECOND + 16_000),
        ),
    ),
    Scenario(
        name="acks merged, doubled, drop",
        troubles=(
            Trouble(Acks(how="merge", count=5), FIRST),
            Trouble(Acks(how="double", count=5), FIRST + 32_000),
            Trouble(Drop(how="reset"), SECOND),
        ),
    ),
    Scenario(
        name="acks reordered, refused",
        troubles=(
            Trouble(Acks(how="reorder", count=4), FIRST),
            Trouble(Acks(how="refuse", count=2), SECOND),
        ),
        gaps=True,
    ),
    Scenario(name="3 hours are over", policy=Policy(max_session_s=8)),
    Scenario(
        name="idle, resumable",
        policy=Policy(idle_timeout_s=2, idle_close_code=4408),
        pause_s=4.0,
    ),
    Scenario(
        name="idle, session over",
        policy=Policy(idle_timeout_s=2, idle_close_code=1000, idle_ends_session=True),
        pause_s=4.0,
    ),
)

MESSAGES = (
    Scenario(
        name="nonsense",
        troubles=(
            Trouble(Say(frame="{"), FIRST),
            Trouble(Say(frame='{"type":"weather","data":{}}'), FIRST),
            Trouble(Say(frame='{"type":"transcript","data":{"id":7}}'), FIRST),
            Trouble(Say(frame=b"\x00\x01"), SECOND),
            Trouble(Say(frame='{"type":"error","message":"' + "x" * 70_000 + '"}'), SECOND),
        ),
    ),
    Scenario(name="final doubled", troubles=(Trouble(Finals(how="double")),)),
    Scenario(name="final lost", troubles=(Trouble(Finals(how="lose")),)),
    Scenario(name="final only in the result", troubles=(Trouble(Finals(how="only_result")),)),
    Scenario(
        name="interim after its final, finals swapped, final first",
        troubles=(
            Trouble(Finals(how="late_interim")),
            Trouble(Finals(how="swap")),
            Trouble(EarlyFinal()),
        ),
    ),
    Scenario(name="final late", policy=Policy(final_delay_s=3)),
    Scenario(name="stop ignored", troubles=(Trouble(IgnoreStop()),)),
)

REFUSALS = (
    Scenario(
        name="429 with and without Retry-After",
        troubles=(
            Trouble(RefusePost(status=429, retry_after_s=2)),
            Trouble(RefusePost(status=429)),
        ),
        reasons=frozenset({"gladia_busy"}),
    ),
    Scenario(
        name="500, 502, 503 with Retry-After",
        troubles=(
            Trouble(RefusePost(status=500)),
            Trouble(RefusePost(status=502)),
            Trouble(RefusePost(status=503, retry_after_s=1)),
        ),
    ),
    Scenario(
        name="unreadable, then slow",
        troubles=(
            Trouble(RefusePost(body="garbage")),
            Trouble(RefusePost(body="empty")),
            Trouble(RefusePost(status=201, delay_s=2)),
        ),
    ),
    Scenario(name="no answer to POST", troubles=(Trouble(HangPost()),)),
    Scenario(
        name="handshake 503, then none",
        troubles=(Trouble(RefuseHandshake(status=503)), Trouble(HangHandshake())),
    ),
    Scenario(
        name="handshake 403 after a drop",
        troubles=(Trouble(Drop(how="reset"), FIRST), Trouble(RefuseHandshake(status=403), FIRST)),
    ),
    *(
        Scenario(
            name=f"{status} until the account is put right",
            troubles=(Trouble(RefusePost(status=status)),),
            states=frozenset({"failed"}),
            reasons=frozenset({reason}),
        )
        for status, reason in (
            (401, "gladia_unauthorized"),
            (402, "gladia_quota"),
            (403, "gladia_forbidden"),
        )
    ),
)

_DROPS = (Trouble(Drop(how="reset"), FIRST), Trouble(Drop(how=1011), SECOND))
_OVER = (Trouble(Drop(how="reset", end_session=True), FIRST),)
SWITCHES = (
    Scenario(name="unacked forgotten", policy=Policy(keep_unacked=False), troubles=_DROPS),
    Scenario(name="ranges per connection", policy=Policy(byte_range="connection"), troubles=_DROPS),
    Scenario(
        name="ranges per connection, unacked forgotten",
        policy=Policy(byte_range="connection", keep_unacked=False),
        troubles=_DROPS,
    ),
    Scenario(name="inclusive ranges", policy=Policy(inclusive_end=True), troubles=_DROPS),
    Scenario(name="one ack for three", policy=Policy(coalesce_acks=3), troubles=_DROPS),
    Scenario(
        name="empty chunks not acked, second socket refused",
        policy=Policy(ack_empty_chunk=False, second_socket="refuse"),
        troubles=_DROPS,
    ),
    Scenario(
        name="strangers accepted, closed",
        policy=Policy(stranger="4403", slot_taken="connect", slot_freed="done"),
        troubles=_OVER,
    ),
    Scenario(
        name="start_session shown, empty finals, close does not stop",
        policy=Policy(start_session_message=True, empty_finals=True, client_close_stops=False),
        troubles=_DROPS,
    ),
    Scenario(
        name="open utterance finalised",
        policy=Policy(open_utterance="finalised", ids_after_resume="restart"),
        troubles=_DROPS,
    ),
    Scenario(
        name="open utterance lost",
        policy=Policy(open_utterance="lost"),
        troubles=_DROPS,
        gaps=True,
    ),
    Scenario(
        name="messages lost while disconnected",
        policy=Policy(finals_during_disconnect="lost", open_utterance="finalised"),
        troubles=_DROPS,
    ),
    Scenario(
        name="ids restart, result late",
        policy=Policy(ids_after_resume="restart", post_processing_s=1),
        troubles=_DROPS,
    ),
)


@pytest.mark.parametrize(
    "scenarios",
    [STREAM, MESSAGES + REFUSALS, SWITCHES],
    ids=["stream", "messages-and-refusals", "switches"],
)
async def test_every_number_is_stored_once_in_its_place(
    scenarios: tuple[Scenario, ...],
    worker: Child,
    livekit_server: LiveKitServer,
    gladia: GladiaStandIn,
    database_url: str,
    slug: str,
) -> None:
    problems = await play_all(scenarios, livekit_server, gladia, database_url, slug)
    assert problems == []
    assert gladia.faults.pending() == []
    assert worker.returncode is None
    worker.signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 40) == 0, worker.tail()
    left = [str(one.metadata["session"]) for one in gladia.open_sessions()]
    assert left == [], "sessions that nobody stopped"
