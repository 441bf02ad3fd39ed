"""Which speech never arrived, by what a jitter buffer made up."""

import pytest

from core.reception import Received, Reception

SECOND = 16_000
RATE = 48_000


def received(total_s: float, made_up_s: float) -> Received:
    return Received(samples=round(total_s * RATE), made_up=round(made_up_s * RATE))


@pytest.mark.parametrize(
    ("spoke", "speaking", "made_up_s", "is_missing"),
    [
        (True, True, 0.0, False),
        (True, True, 0.1, False),
        (True, True, 0.13, True),
        (True, True, 0.5, True),
        (False, True, 0.3, True),
        (True, False, 0.3, True),
        (False, False, 0.5, False),
    ],
)
def test_speech_is_missing_where_a_syllable_was_made_up(
    spoke: bool, speaking: bool, made_up_s: float, is_missing: bool
) -> None:
    reception = Reception()
    assert reception.look(SECOND, received(9.0, 1.0), speaking=spoke) is None
    found = reception.look(3 * SECOND // 2, received(9.5, 1.0 + made_up_s), speaking=speaking)
    assert found == ((SECOND, 3 * SECOND // 2 + SECOND // 10) if is_missing else None)


def test_the_first_look_knows_nothing() -> None:
    assert Reception().look(SECOND, received(9.0, 5.0), speaking=True) is None


def test_each_loss_is_told_once() -> None:
    reception = Reception()
    reception.look(0, received(1.0, 0.0), speaking=True)
    assert reception.look(SECOND, received(2.0, 0.5), speaking=True) is not None
    assert reception.look(2 * SECOND, received(3.0, 0.5), speaking=True) is None


def test_a_buffer_that_stands_still_says_nothing() -> None:
    reception = Reception()
    reception.look(0, received(1.0, 0.0), speaking=True)
    assert reception.look(SECOND, received(1.0, 0.0), speaking=True) is None
