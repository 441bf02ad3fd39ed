"""Making room for others: a silent speaker's session is closed early, and nothing is lost."""

from core.gladia.events import Final
from tests.core.gladia_server import Policy
from tests.core.gladia_world import World


def spare(world: World) -> None:
    world.session.spare(world.now)
    world.settle()


def test_a_silent_speaker_makes_room_and_comes_back() -> None:
    world = World()
    world.speak(3)
    world.gate(4)
    spare(world)
    world.run_for(1)
    assert world.slots == 0
    assert world.states()[-1] == "idle"
    world.speak(3)
    assert world.slots == 1
    world.gate(1)
    world.stop()
    assert world.server.posts == 2
    world.assert_intact(tolerance_blocks=0)


def test_whoever_speaks_keeps_the_session() -> None:
    world = World()
    world.speak(3)
    spare(world)
    world.speak(3)
    world.gate(10)
    assert world.slots == 1
    world.stop()
    assert world.server.posts == 1
    world.assert_intact(tolerance_blocks=0)


def test_a_wish_is_forgotten_when_speech_goes_on() -> None:
    """It was asked in a pause in which it could not go yet."""
    world = World()
    world.speak(3)
    world.refuse_handshakes = [None] * 3
    world.cut()
    world.session.pause(world.now)
    spare(world)
    world.speak(10)
    world.gate(5)
    assert world.slots == 1
    world.stop()
    world.assert_intact()


def test_the_last_words_are_waited_for() -> None:
    world = World(Policy(final_delay_s=2.0))
    world.speak(3)
    world.gate(0.1)
    assert not [event for event in world.events if isinstance(event, Final)]
    spare(world)
    world.run_for(5)
    assert world.slots == 0
    assert [event for event in world.events if isinstance(event, Final)]
    world.stop()
    world.assert_intact(tolerance_blocks=0)


def test_old_audio_is_heard_before_the_session_goes() -> None:
    world = World()
    world.refuse_handshakes = [None] * 4
    world.speak(20)
    world.gate(0.1)
    spare(world)
    assert world.slots == 1
    world.run_for(20)
    assert world.slots == 0
    world.stop()
    world.assert_intact()
