"""Who gets a session next, and who makes room: the rules of `core.slots` as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.slots import (
    HEAD_START_S,
    PATIENCE_S,
    SPARE_AFTER_S,
    SPEAKING_S,
    Demand,
    Ticket,
    in_line,
    to_give_up,
)

NOW = 1000.0


def ticket(name: str, waited_s: float, silent_s: float = 600.0) -> Ticket:
    return Ticket(name=name, asked_at=NOW - waited_s, heard_at=NOW - silent_s)


LINES: dict[str, tuple[list[Ticket], str]] = {
    "first come, first served": ([ticket("b", 5), ticket("a", 9), ticket("c", 1)], "abc"),
    "also among those who speak": ([ticket("b", 5, 0.1), ticket("a", 9, 0.4)], "ab"),
    "a voice of the moment before old audio": ([ticket("a", 19), ticket("b", 0.1, 0.2)], "ba"),
    "a pause between words is still speech": ([ticket("a", 9), ticket("b", 1, 1.4)], "ba"),
    "whoever stopped speaking loses the head start": ([ticket("a", 9), ticket("b", 1, 2)], "ab"),
    "but not before who waited longer than that": ([ticket("a", 21), ticket("b", 0.5, 0)], "ab"),
    "one moment, by name": ([ticket("b", 5), ticket("a", 5)], "ab"),
}


@pytest.mark.parametrize("name", LINES)
def test_who_is_next(name: str) -> None:
    tickets, order = LINES[name]
    assert "".join(each.name for each in in_line(tickets, NOW)) == order


waits = st.floats(0, 100)


@given(st.lists(st.tuples(waits, waits), min_size=2, max_size=40))
def test_nobody_is_overtaken_by_who_came_much_later(people: list[tuple[float, float]]) -> None:
    line = in_line([ticket(f"{n:02}", *person) for n, person in enumerate(people)], NOW)
    for index, later in enumerate(line):
        assert all(other.asked_at <= later.asked_at + HEAD_START_S for other in line[:index])


def test_a_silent_one_is_served_though_new_voices_never_end() -> None:
    """One slot a second, one new voice a second: the wait ends when the head start is used up."""
    asked = {"old": 0.0}
    for second in range(1, 100):
        asked[f"v{second}"] = second
        line = [
            Ticket(name=name, asked_at=at, heard_at=-60.0 if name == "old" else second)
            for name, at in asked.items()
        ]
        served = in_line(line, second)[0].name
        del asked[served]
        if served == "old":
            break
    assert second <= HEAD_START_S + 1


ROOM: dict[str, tuple[list[float], int, Demand, set[int]]] = {
    "nobody waits": ([60, 50, 40], 3, Demand(), set()),
    "one waits: who has been silent longest": (
        [4, 50, 40],
        3,
        Demand(tickets=(ticket("a", 1),)),
        {1},
    ),
    "two wait": (
        [4, 50, 40],
        3,
        Demand(tickets=(ticket("a", 1), ticket("b", 0))),
        {1, 2},
    ),
    "a free slot serves one of them": (
        [50, 40],
        3,
        Demand(tickets=(ticket("a", 1), ticket("b", 0))),
        {0},
    ),
    "free slots for all": ([50, 40], 3, Demand(tickets=(ticket("a", 1),)), set()),
    "a short pause is not silence": ([0, 1, 2.9], 3, Demand(tickets=(ticket("a", 1),)), set()),
    "whoever does not leave is not waited for alone": (
        [4, 50, 40],
        3,
        Demand(tickets=(ticket("a", PATIENCE_S + 1),)),
        {1, 2},
    ),
    "Gladia says that the account is full": (
        [4, 0, 40],
        30,
        Demand(refused_since={1: NOW - 1}),
        {2},
    ),
    "whoever has no session cannot give one up": (
        [50, 40],
        30,
        Demand(refused_since={0: NOW - 1}),
        {1},
    ),
}


@pytest.mark.parametrize("name", ROOM)
def test_who_makes_room(name: str) -> None:
    silences, limit, demand, expected = ROOM[name]
    heard_at = {slot: NOW - silence for slot, silence in enumerate(silences)}
    assert to_give_up(heard_at, limit, demand, NOW) == expected


def test_those_on_their_way_out_are_not_replaced_by_others() -> None:
    """While the first goes, and when the slot is free but not yet taken, nobody else is asked."""
    demand = Demand(tickets=(ticket("a", 1),))
    heard_at = {0: NOW - 50, 1: NOW - 40, 2: NOW - 30}
    assert to_give_up(heard_at, 3, demand, NOW) == {0}
    assert to_give_up(heard_at, 3, demand, NOW + 5) == {0}
    del heard_at[0]
    assert to_give_up(heard_at, 3, demand, NOW + 5) == set()


def test_the_numbers_fit_together() -> None:
    assert SPEAKING_S < SPARE_AFTER_S, "nobody who speaks may be asked to go"
