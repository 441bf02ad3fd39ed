"""Scripts of a room's fallback: facts at a time, and the commands that must follow."""

from itertools import pairwise

from core.failover import (
    Command,
    Egress,
    Failover,
    RoomFacts,
    Start,
    Stop,
)

NONE: tuple[Egress, ...] = ()


class Script:
    """A room whose egress service does what it is told, unless a test says otherwise."""

    def __init__(self, *, tracks: frozenset[str] = frozenset({"TR_a"})) -> None:
        self.failover = Failover(after_s=20, silent_s=10)
        self.tracks = tracks
        self.listed: list[Egress] = []
        self.started = 0
        self.log: list[tuple[float, Command]] = []
        self.sound = True
        self.obeys = True

    def facts(self, *, people: int = 2, bot: bool = False) -> RoomFacts:
        return RoomFacts(people=people, bot=bot, tracks=self.tracks, egresses=tuple(self.listed))

    def run(self, start: int, end: int, *, people: int = 2, bot: bool = False) -> list[Command]:
        """Observes once a second; returns the commands."""
        done: list[Command] = []
        for now in range(start, end):
            for command in self.failover.observe(self.facts(people=people, bot=bot), now):
                done.append(command)
                self.log.append((now, command))
                self._obey(command, now)
            for egress in self.listed if self.sound else ():
                self.failover.heard(egress.track_sid, now)
        return done

    def _obey(self, command: Command, now: float) -> None:
        if isinstance(command, Stop):
            self.listed = [one for one in self.listed if one.id != command.egress_id]
        elif self.obeys:
            self.started += 1
            egress = Egress(f"EG_{self.started}", command.track_sid)
            self.listed.append(egress)
            self.failover.started(command.track_sid, egress.id, now)


def test_a_room_with_a_bot_or_without_people_needs_nothing() -> None:
    script = Script()
    assert script.run(0, 60, bot=True) == []
    assert script.run(60, 120, people=0) == []


def test_after_twenty_seconds_without_a_bot_egress_speaks_until_one_is_back() -> None:
    script = Script()
    script.run(0, 10, bot=True)
    assert script.run(10, 30) == []
    assert script.run(30, 60) == [Start(None)]
    assert script.failover.is_heard
    assert script.run(60, 70, bot=True) == [Stop("EG_1")]
    assert script.run(70, 80, bot=True) == []


def test_egress_is_stopped_when_the_last_one_leaves() -> None:
    script = Script()
    script.run(0, 30)
    assert script.run(30, 40, people=0) == [Stop("EG_1")]


def test_asking_starts_at_once_and_stopping_waits_again() -> None:
    script = Script()
    script.run(0, 2)
    script.failover.ask("composite")
    script.failover.ask("composite")
    assert script.run(2, 5) == [Start(None)]
    script.failover.release(5)
    assert script.run(5, 25) == [Stop("EG_1")]
    assert script.run(25, 30) == [Start(None)]


def test_asking_while_a_bot_is_there_changes_nothing() -> None:
    script = Script()
    script.failover.ask("tracks")
    assert script.run(0, 5, bot=True) == []


def test_tracks_come_and_go() -> None:
    script = Script(tracks=frozenset({"TR_a", "TR_b"}))
    script.failover.ask("tracks")
    assert script.run(0, 5) == [Start("TR_a"), Start("TR_b")]
    script.tracks = frozenset({"TR_b", "TR_c"})
    assert script.run(5, 10) == [Stop("EG_1"), Start("TR_c")]


def test_a_silent_egress_is_replaced_and_after_two_the_other_kind_has_its_turn() -> None:
    script = Script()
    script.sound = False
    done = script.run(0, 60)
    assert done[:5] == [Start(None), Stop("EG_1"), Start(None), Stop("EG_2"), Start("TR_a")]
    assert script.log[1][0] - script.log[0][0] == 10


def test_who_asked_for_a_kind_gets_no_other() -> None:
    script = Script()
    script.sound = False
    script.failover.ask("composite")
    assert {c for c in script.run(0, 100) if isinstance(c, Start)} == {Start(None)}


def test_an_egress_that_livekit_lost_is_started_again() -> None:
    script = Script()
    script.run(0, 30)
    script.listed.clear()
    assert script.run(30, 40) == [Start(None)]


def test_a_start_that_timed_out_but_happened_is_taken_over() -> None:
    script = Script()
    script.obeys = False
    assert script.run(0, 22) == [Start(None)]
    script.failover.failed(None, "unavailable", 22, 0.0)
    assert script.failover.reason == "unavailable"
    script.listed.append(Egress("EG_late", None))
    assert script.run(22, 60) == []
    assert script.failover.egress_ids == ("EG_late",)
    assert script.failover.reason is None


def test_nothing_is_started_while_the_list_cannot_be_read() -> None:
    failover = Failover(after_s=0)
    facts = RoomFacts(people=1, bot=False)
    assert [failover.observe(facts, now) for now in range(60)] == [[]] * 60


def test_an_egress_service_that_is_away_is_tried_less_and_less() -> None:
    script = Script()
    script.obeys = False
    starts = []
    for now in range(3000):
        for _ in script.run(now, now + 1):
            starts.append(now)
            script.failover.failed(None, "unavailable", now, 0.0)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert pauses[:5] == [30, 60, 120, 240, 480]
    assert max(pauses) == 600


def test_without_permission_it_waits_until_somebody_asks() -> None:
    script = Script()
    script.obeys = False
    assert script.run(0, 22) == [Start(None)]
    script.failover.failed(None, "unauthorized", 22, 0.0)
    assert script.run(22, 900) == []
    script.failover.ask("auto")
    assert script.run(900, 902) == [Start(None)]


def test_a_start_that_ends_after_the_bot_is_back_is_stopped() -> None:
    script = Script()
    script.obeys = False
    script.run(0, 22)
    script.run(22, 24, bot=True)
    assert script.failover.started(None, "EG_late", 24) == [Stop("EG_late")]


def test_a_stop_that_did_not_help_is_said_again() -> None:
    script = Script()
    script.run(0, 30)
    script.obeys = False
    stuck = list(script.listed)
    stops = []
    for now in range(30, 55):
        script.listed = list(stuck)
        stops += [now for _ in script.run(now, now + 1, bot=True)]
    assert stops == [30, 40, 50]


def test_an_egress_of_a_process_before_us_goes_on() -> None:
    room, runs = Failover(after_s=20), (Egress("EG_old", None),)
    assert room.observe(RoomFacts(people=1, bot=False, egresses=runs), 0.0) == []
    assert room.egress_ids == ("EG_old",)
    assert room.observe(RoomFacts(people=1, bot=False, egresses=runs), 1.0) == []
    bot = room.observe(RoomFacts(people=1, bot=True, egresses=runs), 2.0)
    assert bot == [Stop("EG_old")]


def test_an_egress_that_nobody_wants_any_more_is_not_inherited() -> None:
    room, runs = Failover(after_s=20), (Egress("EG_late", None),)
    room.release(0.0)
    assert room.observe(RoomFacts(people=1, bot=False, egresses=runs), 1.0) == [Stop("EG_late")]
