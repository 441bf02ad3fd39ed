"""Who was not heard: every outage of ours becomes one gap of everybody whom it hit."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent.missed import Missed
from agent.people import Person
from core.ids import Identity, TrackSid

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GAP = NOON + timedelta(minutes=5)
"""Since when nobody was heard."""


def person(name: str, *, joined_at: datetime = NOON, microphone: bool = True) -> Person:
    return Person(
        Identity(name), name.title(), None, "standard", joined_at, has_microphone=microphone
    )


@dataclass
class Told:
    gaps: list[tuple[str, datetime]] = field(default_factory=list)

    def missed(self, *before: Person) -> Missed:
        return Missed(
            lambda joined_at: GAP if joined_at < GAP else None,
            lambda person, since: self.gaps.append((person.identity, since)),
            before,
        )


def test_who_stays_is_missed_until_the_first_track_comes() -> None:
    told, ann = Told(), person("ann")
    missed = told.missed(ann)
    missed.begin(["ann"], 0.0)
    missed.arrived(ann)
    assert missed.is_awaited(ann, 1.0)
    assert told.gaps == []
    missed.heard(ann, 1.0)
    ann.tracks.add(TrackSid("TR_1"))
    missed.heard(ann, 2.0)
    missed.left(ann)
    assert told.gaps == [("ann", GAP)]
    assert not missed.is_awaited(ann, 2.0)


def test_who_left_before_their_track_came_was_missed_all_the_same() -> None:
    told, ann = Told(), person("ann")
    missed = told.missed()
    missed.begin(["ann"], 0.0)
    missed.arrived(ann)
    missed.left(ann)
    assert told.gaps == [("ann", GAP)]


def test_who_left_while_no_bot_was_there_was_missed_until_now() -> None:
    told = Told()
    missed = told.missed(person("ann"), person("ben"))
    missed.begin(["ben"], 0.0)
    missed.arrived(person("ben"))
    missed.begin([], 1.0)
    assert told.gaps == [("ann", GAP)]


def test_who_reconnected_while_no_bot_was_there_was_missed_before_that_too() -> None:
    told, back = Told(), person("ann", joined_at=GAP + timedelta(seconds=3))
    missed = told.missed(person("ann"))
    missed.begin(["ann"], 0.0)
    missed.arrived(back)
    missed.heard(back, 1.0)
    assert told.gaps == [("ann", GAP)]
    missed.arrived(person("ann", joined_at=GAP + timedelta(seconds=9)))
    assert told.gaps == [("ann", GAP)]


def test_who_came_after_the_outage_or_had_no_microphone_was_not_missed() -> None:
    told, late, mute = Told(), person("late", joined_at=GAP), person("mute", microphone=False)
    missed = told.missed()
    missed.begin(["late", "mute"], 0.0)
    for one in (late, mute):
        missed.arrived(one)
        assert not missed.is_awaited(one, 1.0)
        missed.left(one)
    assert told.gaps == []


def test_a_microphone_that_comes_long_after_the_outage_was_off_till_then() -> None:
    told, ann = Told(), person("ann")
    missed = told.missed()
    missed.begin(["ann"], 0.0)
    missed.arrived(ann)
    missed.heard(ann, 60.0)
    missed.left(ann)
    assert told.gaps == []


def test_our_own_reconnection_is_an_outage_where_tracks_were_lost() -> None:
    told, kept, lost = Told(), person("kept"), person("lost")
    missed = told.missed()
    missed.begin([], 0.0)
    for one in (kept, lost):
        one.tracks.add(TrackSid("TR_1"))
    missed.cut_off([kept, lost])
    assert missed.is_awaited(lost, 1000.0), "however long it takes"
    lost.tracks.clear()
    missed.back([kept, lost], 1000.0)
    missed.heard(lost, 1001.0)
    assert [identity for identity, _ in told.gaps] == ["lost"]
    assert kept.missed_since is None
