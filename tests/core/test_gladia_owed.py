"""What a session owes text for: a table of conversations, in seconds of audio."""

from collections.abc import Callable

import pytest

from core.audio import samples
from core.gladia.limits import Limits
from core.gladia.overlap import Span, untold
from core.gladia.owed import Owed

Step = Callable[[Owed], None]


def hears(start_s: float) -> Step:
    return lambda owed: owed.speech_started(samples(start_s))


def ends(end_s: float) -> Step:
    return lambda owed: owed.speech_ended(samples(end_s))


def shows(start_s: float, end_s: float) -> Step:
    return lambda owed: owed.told(samples(start_s), samples(end_s), is_final=False)


def says(start_s: float, end_s: float) -> Step:
    return lambda owed: owed.told(samples(start_s), samples(end_s), is_final=True)


def after(steps: list[Step]) -> Owed:
    owed = Owed(0, Limits())
    for step in steps:
        step(owed)
    return owed


def drops(sent_s: float) -> Step:
    return lambda owed: owed.interrupt(samples(sent_s))


def resumes(from_s: float) -> Step:
    return lambda owed: owed.resume(samples(from_s))


def waits(acknowledged_s: float, at_s: float) -> Step:
    return lambda owed: owed.acknowledged(samples(acknowledged_s), at_s)


BEGINNINGS: dict[str, tuple[list[Step], float]] = {
    "nothing was said": ([], 0),
    "speech was announced": ([hears(3)], 3),
    "it ended, and its final is awaited": ([hears(3), ends(5)], 3),
    "its final came": ([hears(3), ends(5), says(3.2, 4.8)], 5),
    "it came before the end": ([hears(3), says(3.2, 4.8), ends(5)], 5),
    "the next began meanwhile": ([hears(3), ends(5), hears(6), says(3, 5)], 6),
    "finals changed places": ([hears(3), ends(5), hears(6), ends(8), says(6, 8)], 3),
    "one of two cuts came": ([hears(3), says(3, 5)], 5),
    "the second of two cuts came first": ([hears(3), says(6, 8)], 3),
    "an interim without an announcement": ([shows(3, 4)], 3),
    "an interim of the second cut": ([hears(3), shows(6, 7)], 3),
    "an end without a beginning": ([ends(4)], 0),
    "long silence": ([waits(5, 1), waits(20, 16)], 5),
    "a burst": ([waits(5, 1), waits(20, 15)], 0),
    "a pause": ([waits(5, 1), waits(19, 90)], 0),
    "a drop": ([hears(3), drops(8)], 3),
    "a drop in silence": ([hears(3), ends(5), says(3, 5), drops(8)], 5),
    "what it heard is covered afterwards": ([hears(3), drops(8), resumes(8), says(3, 10)], 10),
    "a drop, and a server that begins anew": (
        [hears(3), drops(8), resumes(7), hears(7), says(7, 9)],
        3,
    ),
    "what is at risk does not grow old": (
        [hears(3), waits(6, 1), drops(8), resumes(8), waits(9, 20), waits(99, 90)],
        3,
    ),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_where_another_session_would_begin(name: str) -> None:
    steps, begin_s = BEGINNINGS[name]
    owed = after(steps)
    assert owed.begins(samples(10)) == samples(begin_s)


RISKS: dict[str, tuple[list[Step], list[tuple[float, float]]]] = {
    "nothing without a drop": ([hears(3), ends(5)], []),
    "open speech": ([hears(3), drops(8)], [(3, 8)]),
    "the rest is heard again": ([hears(3), drops(8), resumes(6)], [(3, 6)]),
    "all is heard again": ([hears(3), drops(8), resumes(0)], []),
    "speech and the silence behind it": ([hears(3), ends(5), drops(8)], [(3, 5), (5, 8)]),
    "a final on its way arrives": (
        [hears(3), ends(5), drops(8), says(3, 5), resumes(8)],
        [(5, 8)],
    ),
    "the utterance goes on": ([hears(3), shows(3.2, 7), drops(8), resumes(8), says(3.2, 9)], []),
    "the server forgot it": ([hears(3), drops(8), resumes(8), hears(8), says(8, 9)], [(3, 8)]),
    "news of the old hearing come first": (
        [hears(3), drops(8), ends(5), hears(7), resumes(8)],
        [(3, 8)],
    ),
    "two drops": (
        [hears(3), drops(5), resumes(5), hears(5), drops(8), resumes(8), says(5, 9)],
        [(3, 5)],
    ),
    "old silence is silence": ([waits(5, 1), waits(20, 16), drops(21)], [(5, 21)]),
    "too short for a word": ([drops(0.09)], []),
}


@pytest.mark.parametrize("name", RISKS)
def test_what_a_lost_connection_may_have_taken_along(name: str) -> None:
    steps, at_risk = RISKS[name]
    owed = after(steps)
    assert owed.at_risk == [(samples(start), samples(end)) for start, end in at_risk]


def test_text_is_news_where_none_was_told() -> None:
    owed = Owed(0, Limits())
    for step in (hears(3), ends(5), says(3, 5), hears(6), ends(7), says(8, 9)):
        step(owed)
    spans = [(3, 5), (6, 7), (8, 9), (9, 9.5)]
    assert [owed.awaits((samples(a), samples(b))) for a, b in spans] == [False, True, False, True]


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ((0, 900), [(1000, 9000)]),
        ((0, 1900), [(1900, 9000)]),
        ((0, 5000), [(5000, 9000)]),
        ((1000, 9000), []),
        ((1400, 8600), []),
        ((2000, 8000), [(1000, 2000), (8000, 9000)]),
        ((8999, 12_000), [(1000, 9000)]),
    ],
)
def test_untold(told: Span, left: list[Span]) -> None:
    assert untold([(1000, 9000)], told, 500) == left
