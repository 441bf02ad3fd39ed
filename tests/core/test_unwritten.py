"""Which voice no text covers yet, as a table."""

import pytest

from core.unwritten import Unwritten

S = 16_000


@pytest.mark.parametrize(
    ("steps", "span"),
    [
        pytest.param([], None, id="silence"),
        pytest.param([(1, 3)], (1, 3), id="nobody wrote anything"),
        pytest.param([(1, 2), (4, 5)], (1, 5), id="two sentences"),
        pytest.param([(1, 3), 2], (2, 3), id="an interim so far"),
        pytest.param([(1, 3), 3], None, id="all of it"),
        pytest.param([(1, 3), 2.9], None, id="the detector hears the word a little longer"),
        pytest.param([(1, 3), 2.9, (10, 12)], (2.9, 12), id="and then somebody goes on"),
        pytest.param([(1, 3), 4, (5, 6)], (5, 6), id="written beyond the voice, then more"),
        pytest.param([(5, 6), 3], (5, 6), id="text about what was before"),
        pytest.param([(1, 1.1)], None, id="a click"),
    ],
)
def test_unwritten(
    steps: list[tuple[float, float] | float], span: tuple[float, float] | None
) -> None:
    unwritten = Unwritten()
    for step in steps:
        if isinstance(step, tuple):
            start, end = step
            unwritten.voice(round(start * S), round(end * S))
        else:
            unwritten.written(round(step * S))
    assert unwritten.span == (span and (round(span[0] * S), round(span[1] * S)))
