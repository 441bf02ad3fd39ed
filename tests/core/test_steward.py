"""The steward's decisions as scripts: what the server and the lease table say, what is done."""

from dataclasses import replace

from core.retry import Backoff
from core.steward import (
    HESITATION_S,
    SETTLED_S,
    DeleteDispatch,
    Dispatch,
    Rank,
    RemoveGhost,
    RoomView,
    Steward,
    outranked,
)

EVEN = Backoff(first_s=2.0, max_s=8.0, jitter=0.0)


def steward() -> Steward:
    return Steward(pickup_s=3.0, backoff=EVEN)


def room(people: int = 1, bots: tuple[str, ...] = (), *, asked: bool = True) -> RoomView:
    return RoomView(name="r", people=people, bots=bots, asked=asked)


def test_a_peopled_room_without_a_lease_gets_a_bot_at_once() -> None:
    one = steward()
    assert one.suspects({"a", "r"}, {"a"}, 10.0, 0.5) == ("r",)
    assert one.decide(room(), 10.0, 0.5) == (Dispatch("r"),)


def test_ghosts_go_before_the_new_bot_comes() -> None:
    one = steward()
    one.suspects({"r"}, (), 10.0, 0.5)
    commands = one.decide(room(bots=("agent-1", "agent-2")), 10.0, 0.5)
    assert commands == (RemoveGhost("r", "agent-1"), RemoveGhost("r", "agent-2"), Dispatch("r"))


def test_a_dispatch_that_is_picked_up_is_not_repeated() -> None:
    one = steward()
    one.suspects({"r"}, (), 10.0, 0.5)
    one.decide(room(), 10.0, 0.5)
    one.dispatched("r", "D1", 10.1)
    assert one.suspects({"r"}, (), 11.0, 0.5) == ()
    assert one.suspects({"r"}, {"r"}, 12.0, 0.5) == ()
    assert one.suspects({"r"}, {"r"}, 99.0, 0.5) == ()


def test_a_dispatch_that_nobody_takes_is_deleted_and_repeated_later_and_later() -> None:
    one = steward()
    now, gaps = 0.0, []
    for _ in range(4):
        one.suspects({"r"}, (), now, 0.5)
        assert one.decide(room(), now, 0.5) == (Dispatch("r"),)
        one.dispatched("r", "D", now)
        assert one.suspects({"r"}, (), now + 2.9, 0.5) == ()
        assert one.suspects({"r"}, (), now + 3.0, 0.5) == ("r",)
        assert one.decide(room(), now + 3.0, 0.5) == (DeleteDispatch("r", "D"),)
        gap = next(g for g in range(1, 60) if one.suspects({"r"}, (), now + 3.0 + g, 0.5))
        gaps.append(gap)
        now += 3.0 + gap
    assert gaps == [2, 4, 8, 8]


def test_a_free_slot_ends_the_waiting() -> None:
    one = steward()
    one.suspects({"r"}, (), 0.0, 0.5)
    one.failed("r", 0.0, 0.5)
    assert one.suspects({"r"}, (), 1.0, 0.5) == ()
    one.wake()
    assert one.suspects({"r"}, (), 1.0, 0.5) == ("r",)


def test_a_bot_that_keeps_dying_comes_back_later_and_later() -> None:
    one = steward()
    now = 0.0
    for expected in (0, 4, 8, 8):
        one.died("r", now, 0.5)
        wait = next(g for g in range(60) if one.suspects({"r"}, (), now + g, 0.5))
        assert wait == expected
        now += wait
        assert one.decide(room(), now, 0.5) == (Dispatch("r"),)
        one.dispatched("r", "D", now)
        assert one.suspects({"r"}, {"r"}, now + 1, 0.5) == ()
        now += 2


def test_a_bot_that_lasted_is_not_held_against_its_room() -> None:
    one = steward()
    for _ in range(3):
        one.died("r", 0.0, 0.5)
    one.suspects({"r"}, {"r"}, 100.0, 0.5)
    one.suspects({"r"}, {"r"}, 100.0 + SETTLED_S, 0.5)
    assert one.suspects({"r"}, (), 200.0, 0.5) == ("r",)


def test_a_lease_that_vanishes_within_seconds_counts_as_a_death() -> None:
    one = steward()
    one.suspects({"r"}, (), 0.0, 0.5)
    one.decide(room(), 0.0, 0.5)
    one.dispatched("r", "D", 0.0)
    one.suspects({"r"}, {"r"}, 1.0, 0.5)
    assert one.suspects({"r"}, (), 2.0, 0.5) == ("r",), "the first death is healed at once"
    one.decide(room(), 2.0, 0.5)
    one.suspects({"r"}, {"r"}, 3.0, 0.5)
    assert one.suspects({"r"}, (), 4.0, 0.5) == ()


def test_rooms_that_need_nobody_are_left_alone() -> None:
    for view in (room(people=0), room(asked=False), room(people=0, bots=("agent-1",))):
        one = steward()
        one.suspects({"r"}, (), 0.0, 0.5)
        assert one.decide(view, 0.0, 0.5) == ()
        assert one.suspects({"r"}, (), 1.0, 0.5) == (), "not looked at every second"
        assert one.suspects({"r"}, (), 3.0, 0.5) == ("r",)


def test_without_leases_a_listed_bot_counts_as_alive() -> None:
    one = steward()
    one.suspects({"r"}, (), 0.0, 0.5)
    assert one.decide(room(bots=("agent-1",)), 0.0, 0.5, leases_known=False) == ()


def test_without_leases_a_bot_whose_process_is_gone_is_replaced() -> None:
    one = steward()
    one.died("r", 0.0, 0.5)
    both = replace(room(bots=("agent-1", "agent-2")), dead=("agent-1",))
    assert one.decide(both, 0.0, 0.5, leases_known=False) == (), "one of the two may be alive"
    one.died("r", 5.0, 0.5)
    view = replace(room(bots=("agent-1",)), dead=("agent-1",))
    commands = one.decide(view, 30.0, 0.5, leases_known=False)
    assert commands == (RemoveGhost("r", "agent-1"), Dispatch("r"))


def test_without_leases_stewards_hesitate_each_differently() -> None:
    one = steward()
    one.suspects({"r"}, (), 0.0, 0.5)
    assert one.decide(room(), 0.0, 0.5, leases_known=False) == ()
    assert one.suspects({"r"}, (), HESITATION_S * 0.4, 0.5) == ()
    assert one.suspects({"r"}, (), HESITATION_S * 0.5, 0.5) == ("r",)
    assert one.decide(room(), HESITATION_S * 0.5, 0.5, leases_known=False) == (Dispatch("r"),)


def test_without_leases_the_own_dead_job_is_replaced_at_once() -> None:
    one = steward()
    one.died("r", 5.0, 0.9)
    assert one.decide(room(), 5.0, 0.9, leases_known=False) == (Dispatch("r"),)


def test_rooms_that_are_gone_are_forgotten() -> None:
    one = steward()
    one.suspects({"r"}, (), 0.0, 0.5)
    one.failed("r", 0.0, 0.5)
    one.suspects(set(), (), 1.0, 0.5)
    assert one.suspects({"r"}, (), 1.5, 0.5) == ("r",)


def test_of_several_bots_exactly_one_stays() -> None:
    bots = [
        Rank(epoch=3, joined_at=10.0, identity="agent-a"),
        Rank(epoch=4, joined_at=9.0, identity="agent-b"),
        Rank(epoch=0, joined_at=11.0, identity="agent-c"),
        Rank(epoch=0, joined_at=11.0, identity="agent-d"),
    ]
    stay = [one for one in bots if not outranked(one, (two for two in bots if two is not one))]
    assert stay == [bots[1]]
    without_leases = bots[2:]
    assert outranked(without_leases[0], without_leases[1:])
    assert not outranked(without_leases[1], without_leases[:1])
