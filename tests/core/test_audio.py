from core import audio


def test_arithmetic_of_the_house_format() -> None:
    assert audio.BYTES_PER_SECOND == 32_000
    assert audio.samples(0.1) == 1600
    assert audio.seconds(1600) == 0.1
    assert audio.samples_in(bytes(3201)) == 1600
