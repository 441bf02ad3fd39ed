"""Servers that forget: acknowledged audio without a final is heard again, or becomes a gap."""

from itertools import product

import pytest

from core.gladia.events import Final
from tests.core.gladia_server import BLOCK, UNIT, WORD_BLOCKS, Policy
from tests.core.gladia_world import STEPS, Step, World, meeting

PARTLY_HEARD = 15
"""Blocks by which a word may start late whose beginning the server forgot."""


def at(step: int, policy: Policy, happens: Step, result_status: int = 200) -> World:
    def before(world: World) -> None:
        if world.steps == step:
            happens(world)

    world = World(policy, before_step=before)
    world.result_status = result_status
    return meeting(world)


# The server is restarted and knows no session any more.


def refuses(world: World) -> None:
    world.refuse_handshakes = [403]
    world.forget(1006)


def is_away(world: World) -> None:
    world.refuse_handshakes = [None] * 40
    world.forget(1006)


RESTARTS: dict[str, Step] = {
    "says so": lambda world: world.forget(4403),
    "says so when asked": lambda world: world.forget(1006),
    "refuses the URL": refuses,
    "is away for a minute": is_away,
}


@pytest.mark.parametrize("final_delay_s", [0.4, 1.5])
@pytest.mark.parametrize("name", RESTARTS)
def test_a_server_that_forgets_everything_before_any_step(name: str, final_delay_s: float) -> None:
    for step in range(1, STEPS + 1):
        world = at(step, Policy(final_delay_s=final_delay_s), RESTARTS[name])
        world.assert_intact(tolerance_blocks=1)
        assert not world.lost_blocks()


# The session lives on, but not what was being spoken.

LAPSES = [
    (
        Policy(
            keeps_unacked=keeps,
            open_utterance=open_utterance,  # type: ignore[arg-type]  # product of literals
            resumed_finals=resumed,
            ids_restart=restart,
            ack_delay_s=ack_delay_s,
            final_delay_s=1.5,
        ),
        result_status,
    )
    for keeps, open_utterance, resumed, restart, ack_delay_s, result_status in product(
        (False, True),
        ("finalised", "lost"),
        (False, True),
        (False, True),
        (0.05, 0.3),
        (200, 404),
    )
]


@pytest.mark.parametrize("offset", range(4))
def test_a_session_that_forgets_what_was_being_spoken(offset: int) -> None:
    """Each of the 64 servers is cut at other steps, so that all steps and all switches meet."""
    for index, (policy, result_status) in enumerate(LAPSES):
        for step in range(1 + (offset + 7 * index) % 16, STEPS + 1, 16):
            world = at(step, policy, World.cut, result_status)
            world.assert_intact(tolerance_blocks=PARTLY_HEARD)
            assert not world.lost_blocks() & world.voiced


# Nobody waits for the end.


class _EndedError(Exception):
    pass


def aborted_at(step: int, policy: Policy, cut_at: int) -> World:
    def before(world: World) -> None:
        if world.steps == cut_at:
            world.cut()
        if world.steps == step:
            raise _EndedError

    world = World(policy, before_step=before)
    with pytest.raises(_EndedError):
        meeting(world)
    world.session.abort(world.now)
    world.events += world.session.events()
    return world


@pytest.mark.parametrize("cut_at", [0, STEPS // 4, STEPS // 2])
@pytest.mark.parametrize("open_utterance", ["kept", "lost"])
def test_whoever_ends_before_any_step_knows_what_is_missing(
    open_utterance: str, cut_at: int
) -> None:
    policy = Policy(open_utterance=open_utterance, final_delay_s=1.5)  # type: ignore[arg-type]  # a literal
    for step in range(cut_at + 1, STEPS + 1):
        world = aborted_at(step, policy, cut_at)
        told = {int(word.text) for final in world.finals() for word in final.words}
        lost = {(block - 1) // WORD_BLOCKS for block in world.lost_blocks()}
        spoken = {(block - 1) // WORD_BLOCKS for block in world.voiced}
        assert spoken <= told | lost, step


# What once went wrong.


def struck(policy: Policy, blows: dict[int, Step], after: int = 1) -> World:
    """A blow for some of the sessions, by number, when it has got so many units of audio."""

    def before(world: World) -> None:
        session = world.server.sessions.get(f"session-{world.server.posts}")
        if session is not None and len(session.units) >= after and world.server.posts in blows:
            blows.pop(world.server.posts)(world)

    return World(policy, before_step=before)


def ends(world: World) -> None:
    world.cut(4403)


def test_speech_that_ended_while_nobody_listened_is_not_taken_for_silence() -> None:
    """The next announcement of speech, over another connection, used to count as such news."""
    six_words = 6 * WORD_BLOCKS * BLOCK // UNIT
    world = struck(Policy(keeps_unacked=True), {1: World.cut}, after=six_words + 1)
    world.refuse_handshakes = [None] * 5
    world.speak(6)
    world.gate(3)
    world.speak(9)
    world.hush(1.2)
    assert world.finals()
    world.cut(4403)
    world.gate(1)
    world.stop()
    world.assert_intact()


def test_words_that_were_shown_survive_a_final_that_begins_behind_them() -> None:
    """The final of what was heard again took the place of the whole utterance."""
    world = World(Policy(open_utterance="lost", ack_delay_s=0.3))
    world.speak(4)
    world.cut()
    world.speak(1)
    world.gate(0.6)
    shown = [event.utterance.text for event in world.events if isinstance(event, Final)]
    assert shown == ["3 4"]
    world.gate(20)
    world.stop()
    world.assert_intact(tolerance_blocks=PARTLY_HEARD)
    assert [final.utterance_id for final in world.finals()] == ["u-1", "u-2"]


def test_an_utterance_under_many_replacements_comes_out_once() -> None:
    """While none might be opened it became final, and the last one's result brought it again."""
    world = struck(Policy(), {2: ends, 3: ends, 4: ends, 5: World.cut})
    world.speak(6)
    world.cut(4403)
    world.gate(1)
    world.stop()
    assert world.server.posts == 5
    world.assert_intact()


def test_the_result_of_a_long_session_brings_only_what_is_missing() -> None:
    """It used to be compared with the last 64 finals; older ones came out a second time."""
    world = World()
    for _ in range(80):
        world.speak(1)
        world.gate(0.3)
    world.speak(2)
    world.cut()
    world.gate(10)
    world.stop()
    world.assert_intact()


@pytest.mark.parametrize(("noise", "posts"), [(0, 1), (300, 2)])
def test_noise_under_a_lost_connection_is_heard_once_more(noise: int, posts: int) -> None:
    """Nothing tells it from forgotten speech; silence tells itself."""
    world = World(Policy(final_delay_s=0.1))
    world.noise = noise
    world.speak(3)
    world.hush(1.2)
    world.cut()
    world.gate(100)
    assert world.server.posts == posts
    world.stop()
    world.assert_intact()
    assert not world.lost_blocks()


def test_a_pause_under_a_lost_connection_costs_nothing() -> None:
    """The server had time enough to speak of all that it had heard."""
    world = World()
    world.speak(3)
    world.gate(8)
    world.cut()
    world.gate(30)
    world.speak(1)
    world.gate(1)
    world.stop()
    assert world.server.posts == 1
    world.assert_intact()
