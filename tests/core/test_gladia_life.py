"""A speaker's sessions on a virtual clock: opening, outages, replacement, old age."""

import pytest

from core.gladia.commands import (
    Answer,
    CreateSession,
    Disown,
    HttpOutcome,
    NoAnswer,
    SendText,
)
from core.gladia.events import AudioLost, Interim, PeerFault, StateChanged
from core.gladia.limits import Limits
from core.gladia.messages import KEEP_ALIVE
from tests.core.gladia_server import Policy
from tests.core.gladia_world import World

# Opening a session.

REFUSALS: dict[str, tuple[HttpOutcome, str, str, float]] = {
    "busy": (Answer(429, "{}"), "queued", "gladia_busy", 1.0),
    "busy, with a hint": (Answer(429, "{}", 7.0), "queued", "gladia_busy", 7.0),
    "server error": (Answer(500, "{}"), "reconnecting", "gladia_unavailable", 1.0),
    "no answer": (NoAnswer("DNS"), "reconnecting", "gladia_unavailable", 1.0),
    "garbage": (Answer(201, "<html>"), "reconnecting", "gladia_unavailable", 1.0),
    "bad key": (Answer(401, "{}"), "failed", "gladia_unauthorized", 60.0),
    "no money": (Answer(402, "{}"), "failed", "gladia_quota", 60.0),
    "forbidden": (Answer(403, "{}"), "failed", "gladia_forbidden", 60.0),
    "bad request": (Answer(400, "{}"), "failed", "gladia_rejected", 60.0),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_told_at_once_and_tried_again_in_time(name: str) -> None:
    answer, state, reason, delay_s = REFUSALS[name]
    world = World()
    world.answers = [answer]
    world.speak(1)
    told = next(event for event in world.events if isinstance(event, StateChanged))
    assert (told.state, told.reason) == (state, reason)
    before = len([c for c in world.log if isinstance(c, CreateSession)])
    asked_at = world.now
    while len([c for c in world.log if isinstance(c, CreateSession)]) == before:
        world.run_for(0.05)
    assert world.now - asked_at + 0.3 == pytest.approx(delay_s, rel=0.6, abs=0.3)
    world.gate(1)
    world.stop()
    world.assert_intact()


def test_without_a_slot_audio_waits() -> None:
    world = World()
    world.grants = False
    world.speak(3)
    world.gate(1)
    assert world.states() == ["queued"]
    world.slots += 1
    world.session.slot_granted(1, world.now)
    world.settle()
    world.stop()
    world.assert_intact()


def test_a_slot_that_comes_too_late_goes_back() -> None:
    world = World()
    world.grants = False
    world.speak(1)
    world.session.abort(world.now)
    world.settle()
    world.grants, released = True, world.slots
    world.session.slot_granted(1, world.now)
    world.settle()
    assert world.slots == released - 1
    assert world.session.finished


def test_a_session_that_is_made_too_late_is_disowned() -> None:
    world = World()
    created = Answer(201, '{"id":"late","url":"wss://gladia/late"}')
    world.speak(1)
    world.session.post_result(1, created, world.now)
    assert world.session.commands() == [Disown("wss://gladia/late")], "another answer came first"
    world.session.abort(world.now)
    world.settle()
    world.session.post_result(1, created, world.now)
    assert world.session.commands() == [Disown("wss://gladia/late")]
    for nothing in (NoAnswer("DNS"), Answer(429, "{}"), Answer(201, "<html>")):
        world.session.post_result(1, nothing, world.now)
        assert world.session.commands() == []


def test_stop_under_a_bad_key_ends_at_once_and_says_what_is_lost() -> None:
    world = World()
    world.answers = [Answer(401, "{}")]
    world.speak(2)
    world.stop(patience_s=1)
    assert "failed" in world.states()
    assert world.lost_blocks() == world.given


# Outages and the buffer.


def test_a_half_open_connection_is_noticed_by_its_silence() -> None:
    world = World()
    world.speak(3)
    for connection in [*world.open]:
        world.server.drop(connection, world.now)
        world.open.discard(connection)
    world.speak(25)
    assert any(e.kind == "ack_timeout" for e in world.events if isinstance(e, PeerFault))
    world.gate(1)
    world.stop()
    world.assert_intact()


def offline(world: World, duration_s: float) -> None:
    """No connection can be had while the speaker goes on."""
    world.refuse_handshakes = [None] * 1000
    world.cut()
    world.speak(duration_s / 0.3)
    world.refuse_handshakes = []


def test_an_outage_within_the_buffer_costs_nothing_but_time() -> None:
    world = World()
    world.speak(3)
    offline(world, 24)
    world.gate(1)
    world.stop()
    assert "reconnecting" in world.states()
    world.assert_intact()


def test_what_falls_out_of_the_buffer_is_reported_exactly() -> None:
    world = World(limits=Limits(buffer_s=6))
    world.speak(2)
    offline(world, 15)
    world.gate(1)
    world.stop()
    lost = world.lost_blocks()
    assert 8.5 <= len(lost) / 100 <= 9.7
    assert all(e.reason == "buffer_full" for e in world.events if isinstance(e, AudioLost))
    world.assert_intact(may_lose=True)


class Ram:
    """A spill for tests."""

    def __init__(self, capacity: int) -> None:
        self.room, self.kept, self.order = capacity, {0: b""}, [0]

    def write(self, pcm: bytes) -> int | None:
        if len(pcm) > self.room:
            return None
        token = self.order[-1] + 1
        self.room -= len(pcm)
        self.kept[token] = pcm
        self.order.append(token)
        return token

    def read(self, token: int, size: int) -> bytes | None:
        assert len(self.kept[token]) == size
        return self.kept[token]

    def free(self, token: int, size: int) -> None:
        self.room += len(self.kept.pop(token))
        assert size > 0


def test_a_spill_carries_an_outage_beyond_memory() -> None:
    spill = Ram(10_000_000)
    world = World(limits=Limits(buffer_s=6), spill=spill)
    world.speak(2)
    offline(world, 75)
    world.gate(1)
    world.gate(4)
    world.speak(4)
    world.gate(1)
    world.stop()
    world.assert_intact()
    assert len(spill.kept) <= 200


def test_replay_is_paced_by_acknowledgements() -> None:
    world = World(Policy(ack_delay_s=0.5))
    world.speak(2)
    offline(world, 20)
    world.run_for(10)
    assert world.server.most_unacked_s <= 4.1
    world.gate(1)
    world.stop()
    world.assert_intact()


def test_a_lost_session_is_replaced_twice_then_slowly() -> None:
    world = World()
    for _ in range(4):
        world.speak(2)
        world.cut(4403)
    assert world.server.posts == 3
    assert world.states()[-1] == "failed"
    world.run_for(50)
    assert world.server.posts == 3
    world.run_for(15)
    assert world.server.posts == 4
    world.gate(1)
    world.stop()
    world.assert_intact()


def test_an_abandoned_session_is_stopped() -> None:
    """It could hold its slot for three hours."""
    world = World()
    world.speak(2)
    world.session.renew("deaf", world.now)
    world.speak(2)
    world.gate(1)
    world.stop()
    world.assert_intact()
    assert world.server.posts == 2
    assert all(session.is_ended for session in world.server.sessions.values())


def test_a_replayed_utterance_keeps_its_id() -> None:
    world = World()
    world.speak(5)
    shown = {e.utterance.utterance_id for e in world.events if isinstance(e, Interim)}
    world.cut(4403)
    world.speak(2)
    world.gate(1)
    world.stop()
    world.assert_intact()
    assert {final.utterance_id for final in world.finals()} == shown == {"u-1"}


# Long lives.


def test_keep_alive_then_idle_close_then_reopening() -> None:
    world = World()
    world.speak(2)
    world.gate(50)
    assert [c.text for c in world.log if isinstance(c, SendText)] == [KEEP_ALIVE] * 3
    world.run_for(20)
    assert world.slots == 0
    assert world.states()[-1] == "idle"
    world.speak(2)
    world.gate(1)
    world.stop()
    assert world.server.posts == 2
    world.assert_intact(tolerance_blocks=0)


def test_an_old_session_is_exchanged_in_a_silence() -> None:
    world = World(limits=Limits(rotate_after_s=20, rotate_at_latest_s=40, idle_close_s=1e9))
    for _ in range(16):
        world.speak(5)
        world.gate(3)
    world.stop()
    assert 3 <= world.server.posts <= 4
    assert "reconnecting" not in world.states()
    world.assert_intact(tolerance_blocks=0)


def test_an_old_session_is_exchanged_in_mid_speech_if_it_must() -> None:
    world = World(limits=Limits(rotate_after_s=20, rotate_at_latest_s=30))
    world.speak(200)
    world.gate(1)
    world.stop()
    assert world.server.posts == 3
    world.assert_intact()
