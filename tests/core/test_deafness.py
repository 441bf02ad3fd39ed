"""What counts as lost when a session brought no words, as a table."""

import pytest

from core.deafness import Deafness

GivenUp = tuple[int, int, int]
"""Voice from, to, and from where the next session hears it again."""


@pytest.mark.parametrize(
    ("steps", "lost"),
    [
        pytest.param([5], [None], id="all is well"),
        pytest.param([(10, 60, 40), 45], [(10, 40)], id="words in what was heard again"),
        pytest.param([(10, 60, 40), 61], [None], id="no words before now: it was noise"),
        pytest.param([(10, 60, 40), 45, 50], [(10, 40), None], id="told once"),
        pytest.param([(10, 60, 5), 12], [None], id="all of it was heard again"),
        pytest.param([(10, 60, 40), (10, 90, 70), 80], [(10, 70)], id="two deaf sessions in a row"),
        pytest.param([(10, 60, 40), 61, 62], [None, None], id="noise is forgotten"),
    ],
)
def test_deafness(steps: list[GivenUp | int], lost: list[tuple[int, int] | None]) -> None:
    deafness = Deafness()
    found = []
    for step in steps:
        if isinstance(step, int):
            found.append(deafness.text(step))
        else:
            start, end, again_from = step
            deafness.given_up((start, end), again_from)
    assert found == lost
