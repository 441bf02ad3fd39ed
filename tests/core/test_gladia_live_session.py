from tests.core.gladia_world import World


def test_speech_becomes_finals_at_its_place() -> None:
    world = World()
    world.speak(6)
    world.gate(3)
    world.speak(4)
    world.gate(1)
    world.stop()
    assert world.server.posts == 1
    assert world.states() == ["live", "draining", "done"]
    assert [final.utterance_id for final in world.finals()] == ["u-1", "u-2"]
    world.assert_intact(tolerance_blocks=1)
