"""Which line goes out next."""

from datetime import UTC, datetime

import pytest

from core.ids import Identity, Slug, UtteranceId
from core.pacing import Pacer
from core.transcript import Segment

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def version(name: str) -> Segment:
    """`ann/3.2` is the second version of Ann's third utterance, `ann/3.4!` its final."""
    who, rest = name.rstrip("!").split("/")
    number, rev = rest.split(".")
    return Segment(
        slug=Slug("room"),
        utterance_id=UtteranceId(f"{who}/{number}"),
        rev=int(rev),
        is_final=name.endswith("!"),
        text=name,
        identity=Identity(who),
        name=who,
        started_at=AT,
        ended_at=AT,
    )


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("one interim goes at once", [(0, "ann/1.1")], [(0, "ann/1.1")]),
        (
            "the newest of many, four times a second",
            [(n * 50, f"ann/1.{n}") for n in range(1, 11)],
            [(50, "ann/1.1"), (300, "ann/1.6"), (550, "ann/1.10")],
        ),
        (
            "speakers do not wait for each other",
            [(0, "ann/1.1"), (0, "bob/1.1"), (50, "ann/1.2"), (50, "bob/1.2")],
            [(0, "ann/1.1"), (0, "bob/1.1"), (250, "ann/1.2"), (250, "bob/1.2")],
        ),
        (
            "a final does not wait and replaces its interim",
            [(0, "ann/1.1"), (50, "ann/1.2"), (100, "ann/1.3!")],
            [(0, "ann/1.1"), (100, "ann/1.3!")],
        ),
        (
            "finals keep their order, before any interim",
            [(0, "ann/2.1"), (0, "bob/1.2!"), (0, "ann/1.5!")],
            [(0, "bob/1.2!"), (0, "ann/1.5!"), (0, "ann/2.1")],
        ),
        (
            "an interim after its final is dropped",
            [(0, "ann/1.2!"), (50, "ann/1.1")],
            [(0, "ann/1.2!")],
        ),
        (
            "a revised final goes out as well",
            [(0, "ann/1.2!"), (50, "ann/1.3!")],
            [(0, "ann/1.2!"), (50, "ann/1.3!")],
        ),
        (
            "an older interim does not replace a newer one",
            [(0, "ann/1.1"), (10, "ann/1.3"), (20, "ann/1.2")],
            [(0, "ann/1.1"), (250, "ann/1.3")],
        ),
        (
            "two utterances of one speaker share the pace",
            [(0, "ann/1.1"), (10, "ann/2.1"), (20, "ann/1.2")],
            [(0, "ann/1.1"), (250, "ann/2.1"), (500, "ann/1.2")],
        ),
    ],
)
def test_script(name: str, script: list[tuple[int, str]], expected: list[tuple[int, str]]) -> None:
    pacer = Pacer()
    sent = []
    for ms in range(1000):
        for at, text in script:
            if at == ms:
                pacer.offer(version(text))
        while (segment := pacer.take(ms / 1000)) is not None:
            sent.append((ms, segment.text))
    assert sent == expected, name
    assert pacer.is_empty
    assert pacer.deadline() is None


def test_deadline_tells_when_something_is_due() -> None:
    pacer = Pacer()
    pacer.offer(version("ann/1.1"))
    assert (pacer.deadline() or 0) <= 0
    pacer.take(10.0)
    pacer.offer(version("ann/1.2"))
    assert pacer.deadline() == pytest.approx(10.25)
    assert pacer.take(10.2) is None
    pacer.offer(version("bob/1.1!"))
    assert (pacer.deadline() or 0) < 10.2


def test_a_full_queue_gives_up_the_oldest_final_and_counts_it() -> None:
    pacer = Pacer(max_finals=2)
    for name in ("ann/1.1!", "ann/2.1!", "ann/3.1!"):
        pacer.offer(version(name))
    assert pacer.counts.overflowed == 1
    taken = [pacer.take(0.0), pacer.take(0.0), pacer.take(0.0)]
    assert [one and one.text for one in taken] == ["ann/2.1!", "ann/3.1!", None]


def test_a_final_given_back_is_the_next() -> None:
    pacer = Pacer()
    pacer.offer(version("ann/1.1!"))
    pacer.offer(version("ann/2.1!"))
    first = pacer.take(0.0)
    assert first is not None
    pacer.give_back(first)
    assert pacer.finals_waiting == 2
    assert pacer.take(0.0) is first


def test_at_the_end_interims_are_dropped() -> None:
    pacer = Pacer()
    pacer.offer(version("ann/1.1"))
    pacer.offer(version("bob/1.1!"))
    pacer.drop_interims()
    final = pacer.take(0.0)
    assert final is not None
    assert final.is_final
    assert pacer.is_empty


def test_a_crowd_that_spoke_once_is_forgotten() -> None:
    pacer = Pacer()
    for number in range(1000):
        pacer.offer(version(f"guest{number}/1.1"))
        assert pacer.take(number * 1.0) is not None
        assert pacer.take(number * 1.0) is None
    assert len(pacer._sent_at) < 300
