"""One speaker against the model of Gladia, on a virtual clock, through everything that may fail."""

import json
import random
from itertools import product

import pytest

from core.errors import LocalProtocolError
from core.gladia.commands import (
    Answer,
    CreateSession,
    FetchResult,
    HttpOutcome,
    NoAnswer,
    SendText,
)
from core.gladia.events import AudioLost, Final, Interim, PeerFault, StateChanged, Usage
from core.gladia.limits import Limits
from core.gladia.messages import KEEP_ALIVE
from core.gladia.options import GladiaOptions
from tests.core.gladia_server import WORD_BLOCKS, Policy, pcm
from tests.core.gladia_world import World


def meeting(world: World) -> World:
    """Five words, a pause, three words, a pause, the end."""
    world.speak(5)
    world.gate(1.5)
    world.speak(3)
    world.gate(0.9)
    world.stop()
    return world


def cut_at(policy: Policy, step: int, code: int = 1006) -> World:
    """The meeting, with every connection cut before this step."""

    def before(world: World) -> None:
        if world.steps == step:
            world.cut(code)

    return meeting(World(policy, before_step=before))


def test_speech_becomes_finals_at_its_place() -> None:
    world = World()
    world.speak(6)
    world.gate(3)
    world.speak(4)
    world.gate(1)
    world.stop()
    assert world.server.posts == 1
    assert world.states() == ["live", "draining", "done"]
    assert [final.utterance_id for final in world.finals()] == ["u-1", "u-2"]
    world.assert_intact(tolerance_blocks=0)
    assert all(e.utterance.rev > 0 for e in world.events if isinstance(e, Interim))
    usage = sum(event.audio_s for event in world.events if isinstance(event, Usage))
    assert usage == pytest.approx(10 * 0.3 + 2 * 0.5)


def test_continuous_audio_needs_no_gate() -> None:
    world = World()
    for _ in range(3):
        world.speak(4)
        world.hush(0.6)
    world.stop()
    world.assert_intact(tolerance_blocks=0)
    assert len(world.finals()) == 3


STEPS = meeting(World()).steps
SERVERS = {
    "documented": Policy(),
    "keeps what it did not acknowledge": Policy(keeps_unacked=True),
    "counts by connection": Policy(byte_range="connection", keeps_unacked=True),
    "merges acknowledgements": Policy(acks="merged", inclusive_end=True),
}


@pytest.mark.parametrize("name", SERVERS)
def test_cut_before_every_step(name: str) -> None:
    for step in range(1, STEPS + 1):
        cut_at(SERVERS[name], step).assert_intact(tolerance_blocks=1)


@pytest.mark.parametrize("code", [1000, 1001, 1009, 1011, 1012, 1013, 4001, 4403, 4408, 4500])
def test_cut_with_every_close_code(code: int) -> None:
    for step in range(3, STEPS, 7):
        cut_at(Policy(), step, code).assert_intact(tolerance_blocks=1)


MATRIX = [
    Policy(
        keeps_unacked=keeps,
        byte_range=byte_range,  # type: ignore[arg-type]  # product of literals
        time_range=time_range,  # type: ignore[arg-type]  # product of literals
        inclusive_end=inclusive,
        acks=acks,  # type: ignore[arg-type]  # product of literals
        acks_empty=empty,
    )
    for keeps, byte_range, time_range, inclusive, acks, empty in product(
        (False, True),
        ("session", "connection"),
        ("session", "connection", "none"),
        (False, True),
        ("single", "merged", "doubled"),
        (False, True),
    )
]


def test_every_combination_of_unknowns() -> None:
    """Each of the 144 servers is cut at another step, so that all steps and all switches meet."""
    for index, policy in enumerate(MATRIX):
        cut_at(policy, 1 + index * 5 % STEPS).assert_intact(tolerance_blocks=1)


@pytest.mark.parametrize("seed", range(120))
def test_random_meetings_with_random_faults(seed: int) -> None:
    """Any mix of speech, pauses, drops, refusals and readings of the protocol."""
    random_meeting(random.Random(seed)).assert_intact(tolerance_blocks=12)


def random_meeting(dice: random.Random) -> World:
    byte_range, time_range = dice.choice(
        [("session", "session"), ("session", "none"), ("connection", "session")]
    )
    policy = Policy(
        keeps_unacked=dice.random() < 0.5,
        byte_range=byte_range,  # type: ignore[arg-type]  # drawn from literals
        time_range=time_range,  # type: ignore[arg-type]  # drawn from literals
        inclusive_end=dice.random() < 0.5,
        acks=dice.choice(["single", "merged", "doubled"]),
        acks_empty=dice.random() < 0.5,
        ack_delay_s=dice.choice([0.02, 0.1, 0.3]),
        final_delay_s=dice.choice([0.1, 0.5, 1.5]),
    )
    rate, left = dice.choice([0.003, 0.01, 0.03]), dice.randint(1, 10)

    def before(world: World) -> None:
        nonlocal left
        if left and dice.random() < rate:
            left -= 1
            misfortune(world, dice)

    world = World(policy, before_step=before)
    for _ in range(dice.randint(3, 6)):
        world.speak(dice.randint(1, 12), frame_blocks=dice.choice([5, 10]))
        if dice.random() < 0.8:
            world.gate(dice.choice([0.6, 0.9, 1.5, 3, 70]))
        else:
            world.hush(dice.choice([0.3, 0.6, 1.2]))
    world.stop()
    return world


def misfortune(world: World, dice: random.Random) -> None:
    kind = dice.random()
    if kind < 0.7:
        world.cut(dice.choice([1001, 1006, 1009, 1011, 1012, 1013, 4500]))
    elif kind < 0.8:
        world.cut(dice.choice([4403, 4408, 1000, 4001]))
    elif kind < 0.9:
        world.refuse_handshakes = [dice.choice([None, 503, 403, 429, 500])]
        world.cut()
    else:
        refusals: list[HttpOutcome] = [
            Answer(429, "{}"),
            Answer(503, "x", 2.0),
            Answer(201, "?"),
            NoAnswer("DNS"),
        ]
        world.answers = [dice.choice(refusals)]


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
        world.server.drop(connection)
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


# Text.


def says(
    world: World, kind: str, text: str, start: float, end: float, *, name: str = "x", **more: object
) -> None:
    """The server says something that the model would not."""
    utterance = {"text": text, "start": start, "end": end, "language": "en", "channel": 0}
    data = {"id": name, "is_final": kind == "final", "utterance": utterance | more}
    message = json.dumps({"type": "transcript", "data": data})
    connection = min(world.open)
    world.session.receive_message(connection, message, world.now)
    world.settle()


def listening() -> World:
    """A speaker whose audio means nothing to the model: only `says` makes text."""
    world = World(options=GladiaOptions(min_interim_confidence=0.3, min_final_confidence=0.5))
    world.hush(4)
    return world


def versions(world: World) -> list[tuple[str, int, bool, str]]:
    return [
        (e.utterance.utterance_id, e.utterance.rev, e.utterance.is_final, e.utterance.text)
        for e in world.events
        if isinstance(e, Interim | Final)
    ]


def test_a_final_that_is_said_twice_counts_once_and_a_changed_one_revises() -> None:
    world = listening()
    says(world, "interim", " he", 0.5, 1)
    says(world, "final", " hello", 0.5, 1.2)
    says(world, "final", " hello", 0.5, 1.2)
    says(world, "interim", " hell", 0.5, 1.2)
    says(world, "final", " hallo", 0.5, 1.2)
    assert versions(world) == [
        ("u-1", 1, False, "he"),
        ("u-1", 2, True, "hello"),
        ("u-1", 3, True, "hallo"),
    ]


def test_an_empty_final_withdraws_what_was_shown_and_only_that() -> None:
    world = listening()
    says(world, "final", " ", 0.1, 0.2, name="noise")
    says(world, "interim", " hm", 0.5, 1)
    says(world, "final", "", 0.5, 1)
    assert [version[1:] for version in versions(world)] == [(1, False, "hm"), (2, True, "")]


def test_confidence_floors() -> None:
    world = listening()
    says(world, "interim", "mumble", 0.5, 1, confidence=0.2)
    says(world, "interim", "mumbled", 0.5, 1.1, confidence=0.4)
    says(world, "final", "mumbled", 0.5, 1.1, confidence=0.4)
    says(world, "final", "clear", 2, 2.5, name="y", confidence=0.5)
    assert [version[2:] for version in versions(world)] == [
        (False, "mumbled"),
        (True, ""),
        (True, "clear"),
    ]


def test_an_interim_without_a_final_becomes_one_and_may_still_be_replaced() -> None:
    world = listening()
    says(world, "interim", "so far", 0.5, 1)
    world.run_for(15 + 5 + 0.1)
    says(world, "final", "so far so good", 0.5, 1.5)
    assert [version[1:] for version in versions(world)] == [
        (1, False, "so far"),
        (2, True, "so far"),
        (3, True, "so far so good"),
    ]
    finals = [e.utterance.provisional for e in world.events if isinstance(e, Final)]
    assert finals == [True, False]


def test_ids_that_restart_do_not_overwrite_what_was_said() -> None:
    world = listening()
    says(world, "final", "first", 0.5, 1)
    says(world, "final", "second", 2, 2.5)
    assert [version[0] for version in versions(world)] == ["u-1", "u-2"]


def test_translations_join_their_utterance_in_any_order() -> None:
    world = listening()

    def translates(language: str, text: str) -> None:
        translated = {"text": text, "start": 0.5, "end": 1, "channel": 0}
        data = {
            "utterance_id": "x",
            "target_language": language,
            "translated_utterance": translated,
        }
        message = json.dumps({"type": "translation", "data": data})
        world.session.receive_message(min(world.open), message, world.now)
        world.settle()

    translates("fr", " bonjour")
    says(world, "final", "hello", 0.5, 1)
    translates("de", " hallo")
    finals = [e.utterance for e in world.events if isinstance(e, Final)]
    assert [(f.rev, f.text, f.translations) for f in finals] == [
        (1, "hello", {"fr": "bonjour"}),
        (2, "hello", {"fr": "bonjour", "de": "hallo"}),
    ]


def test_a_final_that_never_came_is_fetched() -> None:
    world = World(Policy(final_delay_s=5))
    world.speak(4)
    world.gate(1)
    world.cut()
    world.gate(20)
    world.stop()
    assert any(isinstance(command, FetchResult) for command in world.log)
    world.assert_intact()


def test_a_result_that_cannot_be_had_leaves_the_last_interim() -> None:
    world = World(Policy(final_delay_s=60))
    world.result_status = 404
    world.speak(4)
    world.gate(1)
    world.stop()
    assert world.session.finished
    assert [final.provisional for final in world.finals()] == [True]


# The edges of the interface.


def test_nothing_is_opened_for_nothing() -> None:
    world = World()
    world.session.pause(world.now)
    world.run_for(100)
    world.stop()
    assert world.log == []
    assert world.states() == ["done"]


def test_abort_ends_at_once_and_tells_everything() -> None:
    world = World(Policy(ack_delay_s=1))
    world.speak(4)
    world.session.abort(world.now)
    world.settle()
    assert world.session.finished
    assert world.lost_blocks()
    assert [final.provisional for final in world.finals()] == [True]
    assert not world.open
    assert world.slots == 0
    assert world.session.deadline() is None


def test_our_own_mistakes_are_errors() -> None:
    world = World()
    world.session.send_audio(1600, pcm(11, 10), world.now)
    with pytest.raises(LocalProtocolError):
        world.session.send_audio(1600, pcm(11, 10), world.now)
    with pytest.raises(LocalProtocolError):
        world.session.send_audio(9600, b"abc", world.now)


def test_no_nonsense_of_the_server_raises() -> None:
    world = World()
    world.speak(2)
    connection = min(world.open)
    dice = random.Random(7)
    ack = json.dumps({"type": "audio_chunk", "acknowledged": True, "data": {"byte_range": [0, 9]}})
    for _ in range(300):
        cut = dice.randrange(len(ack))
        broken = ack[:cut] + dice.choice(["", "}", "null", '"', "[", "1e999"]) + ack[cut + 1 :]
        world.session.receive_message(connection, broken, world.now)
    assert any(isinstance(event, PeerFault) for event in world.session.events())


def test_a_word_is_thirty_blocks() -> None:
    """Keeps the fixture honest: what is spoken is what the model hears."""
    world = World()
    world.speak(1)
    assert len(world.voiced) == WORD_BLOCKS
