"""What becomes text, what revises it, and the edges of the interface."""

import json
import random

import pytest

from core.errors import LocalProtocolError
from core.gladia.commands import (
    FetchResult,
)
from core.gladia.events import Final, Interim, PeerFault
from core.gladia.options import GladiaOptions
from tests.core.gladia_server import WORD_BLOCKS, Policy, pcm
from tests.core.gladia_world import World

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
