"""What viewers are told about speakers and the room."""

import json
from datetime import UTC, datetime

import pytest

from core.gladia.events import State
from core.status import LaneHealth, StatusBoard, worst
from core.wire import SpeakerState, SpeakerStatus

TS = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("idle", None, "idle"),
        ("live", None, "live"),
        ("reconnecting", "connection_lost", "reconnecting"),
        ("queued", "no_slot", "queued"),
        ("failed", "gladia_unauthorized", "failed"),
        ("draining", None, "live"),
        ("done", None, "idle"),
    ],
)
def test_gladias_state_is_the_speakers(
    state: State, reason: str | None, expected: SpeakerState
) -> None:
    health = LaneHealth()
    health.changed(state, reason)
    status = health.status("ann")
    assert (status.state, status.reason) == (expected, reason)


def test_ten_seconds_of_voice_without_a_word_are_deaf() -> None:
    health = LaneHealth()
    health.changed("live", None)
    alarms = [health.voice(0.5) for _ in range(20)]
    assert alarms == [False] * 19 + [True]
    assert health.status("ann") == SpeakerStatus(identity="ann", state="deaf", reason="no_text")


def test_words_end_deafness_and_the_count() -> None:
    health = LaneHealth()
    health.changed("live", None)
    for _ in range(100):
        assert not health.voice(0.5)
        health.text()
    for _ in range(20):
        health.voice(0.5)
    health.text()
    assert health.status("ann").state == "live"


def test_alarms_become_rarer_until_a_word_comes() -> None:
    """Music is voice to a detector and has no words: it must not cost a session per 10 s."""
    health = LaneHealth()
    health.changed("live", None)
    alarms = [second for second in range(1, 1001) if health.voice(1.0)]
    assert alarms == [10, 30, 70, 150, 310, 610, 910]
    health.text()
    assert [health.voice(1.0) for _ in range(10)][-1] is True


def test_a_lost_connection_explains_itself() -> None:
    """Voice that waits in the buffer is not unheard."""
    health = LaneHealth()
    health.changed("reconnecting", "connection_lost")
    assert not any(health.voice(1.0) for _ in range(60))
    assert health.status("ann").state == "reconnecting"


def test_the_worst_source_is_the_speakers_state() -> None:
    one = SpeakerStatus(identity="ann", state="live", lost_s=1.5)
    two = SpeakerStatus(identity="ann", state="queued", reason="no_slot", lost_s=2.0)
    assert worst([one, two]) == SpeakerStatus(
        identity="ann", state="queued", reason="no_slot", lost_s=3.5
    )


def test_changes_are_told_soon_and_the_same_every_few_seconds() -> None:
    board = StatusBoard()
    assert board.deadline() < 0
    board.message("room", TS, 10.0)
    assert board.deadline() == pytest.approx(15.0)
    board.room("waiting")
    assert board.deadline() == pytest.approx(15.0), "not a change"
    board.speaker(SpeakerStatus(identity="ann", state="live"))
    assert board.deadline() == pytest.approx(10.5)
    board.message("room", TS, 10.5)
    board.speaker(SpeakerStatus(identity="ann", state="live"))
    board.forget("bob")
    assert board.deadline() == pytest.approx(15.5), "not changes"
    board.forget("ann")
    assert board.deadline() == pytest.approx(11.0)


def test_the_message_has_everybody() -> None:
    board = StatusBoard()
    board.room("live")
    board.insights("failing")
    board.source("track")
    board.speaker(SpeakerStatus(identity="ann", state="live"))
    board.speaker(SpeakerStatus(identity="bob", state="failed", reason="gladia_quota", lost_s=3.25))
    message = json.loads(board.message("room", TS, 1.0))
    assert message["state"] == "live"
    assert message["insights"] == "failing"
    assert message["source"] == "track"
    assert message["speakers"] == [
        {"speakerId": "ann", "state": "live"},
        {"speakerId": "bob", "state": "failed", "reason": "gladia_quota", "lostSec": 3.2},
    ]
