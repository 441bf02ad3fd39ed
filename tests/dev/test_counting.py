"""What the verdict on stored lines says, word by word: the ruler has to be straight."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from dev.counting import Spoken, StoredLine, Verdict, Witness, judge
from dev.stalls import Stalls, stolen_s
from dev.watermark import word_text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WORDS = [word_text(0, number) for number in range(3)]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


SPOKEN = [Spoken("ann", word, at(n), at(n + 0.3)) for n, word in enumerate(WORDS)]


def line(words: Mapping[str, float], identity: str = "ann") -> StoredLine:
    return StoredLine(
        identity=identity,
        kind="speech",
        is_final=True,
        text=" ".join(words),
        words=tuple((word, at(seconds)) for word, seconds in words.items()),
        started_at=at(0),
        ended_at=at(9),
        reason=None,
    )


def gap(start_s: float, end_s: float, reason: str, identity: str = "ann") -> StoredLine:
    return StoredLine(
        identity=identity,
        kind="gap",
        is_final=True,
        text="",
        words=(),
        started_at=at(start_s),
        ended_at=at(end_s),
        reason=reason,
    )


GOOD = line({WORDS[0]: 0.0, WORDS[1]: 1.1, WORDS[2]: 1.9})
TWO = line({WORDS[0]: 0.0, WORDS[2]: 2.0})


def facts(verdict: Verdict) -> tuple[int, int, int, int]:
    """Stored once, covered, did not arrive, lost."""
    return verdict.heard, len(verdict.covered), verdict.dropped, len(verdict.lost)


@pytest.mark.parametrize(
    ("lines", "expected", "problems"),
    [
        ([GOOD], (3, 0, 0, 0), set()),
        ([TWO], (2, 0, 0, 1), {"lost"}),
        ([TWO, gap(0.9, 1.4, "no_bot")], (2, 1, 0, 0), set()),
        ([TWO, gap(0.9, 1.4, "network")], (2, 0, 1, 0), set()),
        ([TWO, gap(0.9, 1.4, "network"), gap(1.1, 1.2, "no_bot")], (2, 1, 0, 0), set()),
        ([TWO, gap(1.5, 2.0, "no_bot")], (2, 0, 0, 1), {"lost"}),
        ([TWO, gap(0.9, 1.4, "no_bot", "ben")], (2, 0, 0, 1), {"lost"}),
        ([GOOD, line({WORDS[1]: 1.1})], (2, 0, 0, 0), {"doubled"}),
        ([GOOD, line({WORDS[1]: 1.1}, "ben")], (3, 0, 0, 0), {"strange"}),
        ([line({WORDS[0]: 0.2, WORDS[1]: 1.0, WORDS[2]: 2.0})], (3, 0, 0, 0), {"misplaced"}),
        (
            [line({WORDS[0]: 1.1, WORDS[1]: 1.0, WORDS[2]: 2.0})],
            (3, 0, 0, 0),
            {"misplaced", "swapped"},
        ),
    ],
)
def test_each_word_is_where_it_was_said_or_something_says_why(
    lines: list[StoredLine], expected: tuple[int, int, int, int], problems: set[str]
) -> None:
    verdict = judge(SPOKEN, lines)
    assert facts(verdict) == expected
    assert set(verdict.problems) == problems


def test_only_what_a_witness_heard_can_be_lost() -> None:
    witness = Witness()
    assert judge(SPOKEN, [TWO], witness).unheard == 1
    witness.heard[SPOKEN[1].key] = at(1.4)
    assert set(judge(SPOKEN, [TWO], witness).problems) == {"lost"}


def test_a_word_that_was_late_on_its_way_may_be_stored_later() -> None:
    late = line({WORDS[0]: 0.6, WORDS[1]: 1.0, WORDS[2]: 2.0})
    witness = Witness()
    witness.heard[SPOKEN[0].key] = at(1.1)
    assert judge(SPOKEN, [late], witness).problems == {}
    witness.heard[SPOKEN[0].key] = at(0.5)
    assert set(judge(SPOKEN, [late], witness).problems) == {"misplaced"}


def test_times_are_not_judged_while_the_machine_stood_still() -> None:
    mixed = line({WORDS[0]: 0.0, WORDS[1]: 7.0, WORDS[2]: 0.5})
    witness = Witness()
    witness.heard = {one.key: one.ended_at for one in SPOKEN}
    witness.stalls.found.append((at(1.2), at(1.5)))
    verdict = judge(SPOKEN, [mixed], witness)
    assert verdict.untimed == 3
    assert verdict.problems == {}
    assert set(judge(SPOKEN, [TWO], witness).problems) == {"lost"}, "lost is lost all the same"


def test_a_stall_is_noticed() -> None:
    stalls = Stalls()
    with stalls.watched():
        sum(range(40_000_000))  # in C: no other thread runs meanwhile
    assert max(end - start for start, end in stalls.found) > timedelta(seconds=0.15)


@pytest.mark.parametrize(("stolen_s", "found"), [(0.1, 0), (0.2, 1)])
def test_cpu_time_that_the_host_took_is_a_stall(stolen_s: float, found: int) -> None:
    account = iter([100.0, 100.0 + stolen_s])
    stalls = Stalls(stolen_s=lambda: next(account))
    with stalls.watched():
        pass
    assert len(stalls.found) == found


def test_the_kernels_account_of_stolen_time_can_be_read() -> None:
    assert stolen_s() >= 0.0


def test_what_sounded_around_a_stall_is_disturbed() -> None:
    stalls = Stalls([(at(10), at(10.5))])
    assert stalls.disturb(at(8), at(9.1))
    assert stalls.disturb(at(15), at(16))
    assert not stalls.disturb(at(8), at(8.9))
    assert not stalls.disturb(at(16), at(17))
