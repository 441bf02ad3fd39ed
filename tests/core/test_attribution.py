"""Attribution on made-up meetings: four speakers, real reporting delays, a clock that is off."""

import random
from dataclasses import dataclass

import pytest

from core.alignment import CELL_S, Alignment
from core.attribution import NOBODY, Attribution, Attributor
from core.speaking import Speaking

NOW = 1000.0


def spoken(*intervals: tuple[str, float, float]) -> Speaking:
    """Speech as LiveKit would report it: half a second late at its start, 0.9 s at its end."""
    speaking = Speaking()
    reports = [(on + 0.5, who, True) for who, on, _ in intervals]
    reports += [(off + 0.9, who, False) for who, _, off in intervals]
    reports += [
        (beat, who, True)
        for who, on, off in intervals
        for beat in [on + 0.5 + 2 * n for n in range(1, int((off - on) / 2))]
    ]
    for at, who, active in sorted(reports):
        speaking.report(who, speaking=active, now=at)
    return speaking


def attributor(*intervals: tuple[str, float, float]) -> Attributor:
    made = Attributor()
    made.speaking = spoken(*intervals)
    return made


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([("ann", 0, 10)], Attribution("ann", "direct", 1.0)),
        ([("ann", 0, 10), ("bob", 4, 5)], Attribution("ann", "direct", 0.95)),
        ([("ann", 2, 10), ("bob", 2, 7)], Attribution("ann", "direct", 0.8)),
        ([("ann", 7, 10)], Attribution("ann", "direct", 0.3)),
        ([("ann", 9, 10)], NOBODY),
        ([("ann", 20, 30)], NOBODY),
        ([], NOBODY),
    ],
)
def test_an_utterance_from_0_to_10(
    intervals: list[tuple[str, float, float]], expected: Attribution
) -> None:
    found = attributor(*intervals).name(0, 10, 50)
    assert (found.identity, found.method) == (expected.identity, expected.method)
    assert found.confidence == pytest.approx(expected.confidence, abs=0.01)


def test_a_browser_that_falls_silent_stops_counting() -> None:
    speaking = Speaking()
    speaking.report("ann", speaking=True, now=10.5)
    assert speaking.overlaps(10, 60, now=12)["ann"] == pytest.approx(2)
    assert speaking.overlaps(10, 60, now=30)["ann"] == pytest.approx(0.5)


def test_old_speech_and_old_speakers_are_forgotten() -> None:
    speaking = spoken(("ann", 0, 5))
    assert speaking.overlaps(0, 5, now=500) != {}
    assert speaking.overlaps(0, 5, now=700) == {}
    assert not speaking.reporters


def test_a_crowd_of_reporters_is_bounded() -> None:
    speaking = Speaking()
    for number in range(2000):
        speaking.report(f"p{number}", speaking=True, now=1.0)
    assert len(speaking.reporters) == 500


def test_a_label_names_only_whom_it_was_seen_with_and_only_when_all_report() -> None:
    made = attributor(("ann", 0, 10), ("bob", 12, 22))
    assert made.name(0, 10, 30, label="1").identity == "ann"
    assert made.name(12, 22, 30, label="2").identity == "bob"
    assert made.name(24, 26, 30, label="1") == NOBODY
    found = made.name(24, 26, 30, label="1", all_report=True)
    assert (found.identity, found.method) == ("ann", "label")
    assert made.name(26, 28, 30, label="3", all_report=True) == NOBODY


def test_a_label_decides_between_two_who_both_speak() -> None:
    made = attributor(("ann", 0, 10), ("bob", 12, 22), ("ann", 30, 35), ("bob", 30, 35))
    made.name(0, 10, 40, label="1")
    made.name(12, 22, 40, label="2")
    assert made.name(30, 35, 40, label="2").identity == "bob"
    assert made.name(30, 35, 40, label="1").method == "label"


@pytest.mark.parametrize("late_s", [-0.8, 0.0, 0.3, 1.0, 4.0])
def test_the_correction_finds_the_delay_a_little_at_a_time(late_s: float) -> None:
    chance = random.Random(7)
    speech, at = [], 100.0
    while at < 1700:
        length = chance.uniform(0.8, 6)
        speech.append(("ann", at, at + length))
        at += length + chance.uniform(0.5, 3)
    speaking, alignment = Speaking(), Alignment()
    reports = sorted(
        [(on + 0.5, True) for _, on, _ in speech] + [(off + 0.9, False) for _, _, off in speech]
    )
    last = 0.0
    for cell in range(1000, 17000):
        now = cell * CELL_S
        while reports and reports[0][0] <= now:
            at, active = reports.pop(0)
            speaking.report("ann", speaking=active, now=at)
        if cell % 20 == 0 and speaking.overlaps(now - 0.1, now, now):
            speaking.report("ann", speaking=True, now=now)
        voiced = any(on <= now < off for _, on, off in speech)
        alignment.hear(now - late_s, voiced=voiced)
        before = alignment.correction_s
        if alignment.calibrate(speaking, now) is not None:
            assert abs(alignment.correction_s - before) <= 0.2 + 1e-9
            last = now
    assert last > 1500
    assert alignment.correction_s == pytest.approx(late_s, abs=0.21)


@dataclass
class Meeting:
    """Who really spoke when, and the utterances that a recogniser would cut from it."""

    turns: list[tuple[str, float, float]]
    utterances: list[tuple[str, float, float]]


def meeting(chance: random.Random, minutes: float) -> Meeting:
    """Turns of four people: a quarter of them short, some cut in on, with back-channels."""
    turns, utterances, at, who = [], [], 5.0, "p0"
    while at < minutes * 60:
        who = chance.choice([f"p{n}" for n in range(4) if f"p{n}" != who])
        length = chance.uniform(0.7, 2) if chance.random() < 0.25 else chance.uniform(3, 15)
        turns.append((who, at, at + length))
        start = at
        while start < at + length:
            end = min(at + length, start + chance.uniform(1.5, 6))
            utterances.append((who, start, end))
            start = end + chance.uniform(0.1, 0.4)
        if length > 5 and chance.random() < 0.3:
            other = chance.choice([f"p{n}" for n in range(4) if f"p{n}" != who])
            yes = at + chance.uniform(1, length - 1)
            turns.append((other, yes, yes + 0.5))
        at += length + chance.uniform(-0.3, 1.2)
    return Meeting(turns, utterances)


@pytest.mark.parametrize(("clock_error_s", "goal"), [(0.0, 0.97), (0.3, 0.95), (-0.3, 0.95)])
def test_four_speakers_are_told_apart_with_a_clock_that_is_off(
    clock_error_s: float, goal: float
) -> None:
    """Reports jitter as LiveKit's do; the audio's delay is misjudged by `clock_error_s`."""
    chance = random.Random(20261121)
    right = total = 0.0
    for _ in range(3):
        made = meeting(chance, 20)
        reports = [(on + chance.uniform(0.47, 0.67), who, True) for who, on, _ in made.turns]
        reports += [(off + chance.uniform(0.3, 1.2), who, False) for who, _, off in made.turns]
        for who, on, off in made.turns:
            reports += [(on + 2.0 * n, who, True) for n in range(1, int((off - on) / 2) + 1)]
        reports.sort()
        names = Attributor()
        spans = [(on, off) for _, on, off in made.turns]
        heard = 0.0
        for truth, start, end in made.utterances:
            now = end + 2.0
            while reports and reports[0][0] <= now:
                at, who, active = reports.pop(0)
                names.speaking.report(who, speaking=active, now=at)
            while heard < now - 1:
                voiced = any(on <= heard < off for on, off in spans if abs(on - heard) < 20)
                names.alignment.hear(heard + clock_error_s, voiced=voiced)
                heard += CELL_S
            names.alignment.calibrate(names.speaking, now)
            found = names.name(start + clock_error_s, end + clock_error_s, now)
            total += end - start
            right += (end - start) * (found.identity == truth)
    print(f"{clock_error_s:+} s: {right / total:.3f}")  # noqa: T201 - shown when it fails
    assert right / total >= goal
