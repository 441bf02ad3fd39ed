"""Which speech never arrived, by what real jitter buffers said of themselves."""

from collections.abc import Sequence

import pytest

from core.reception import Reception
from core.source_clock import Buffered

Row = tuple[float, float, float, float, float]
"""Seconds; then, in ms since the row before: made up, stretched, mean delay, played."""

# Measured with livekit-rtc 1.1.21 and livekit-server 1.13.5, network faults in a network namespace.
SERVER_STANDS_STILL_400_MS: list[Row] = [
    (3.54, 0.0, 0.0, 20.0, 500.0),
    (4.04, 15.9, 0.0, 20.0, 480.0),
    (4.55, 356.9, 0.0, 70.0, 140.0),
    (5.05, 0.0, 0.0, 335.0, 520.0),
    (5.56, 0.0, 0.0, 400.0, 500.0),
    (6.06, 0.0, 0.0, 400.0, 500.0),
    (6.57, 0.0, 0.0, 400.0, 520.0),
    (7.08, 0.0, 0.0, 400.0, 500.0),
]
SERVER_STANDS_STILL_1500_MS: list[Row] = [
    (5.84, 0.0, 0.0, 70.0, 500.0),
    (6.35, 0.0, 0.0, 70.0, 500.0),
    (6.85, 312.1, 0.0, 70.0, 180.0),
    (7.35, 515.1, 0.0, 0.0, 0.0),
    (7.86, 500.0, 0.0, 0.0, 0.0),
    (8.86, 118.2, 34.6, 444.3, 880.0),
    (9.36, 0.0, 7.8, 1157.5, 480.0),
    (9.86, 0.0, 0.0, 1505.6, 500.0),
    (10.36, 0.0, 0.0, 1505.6, 500.0),
]
AND_CATCHES_UP: list[Row] = [
    (10.16, 2.4, 0.0, 417.9, 280.0),
    (10.67, 0.0, -70.6, 352.0, 580.0),
    (11.17, 0.0, -40.3, 316.3, 540.0),
    (11.68, 0.0, -70.6, 257.0, 580.0),
    (12.18, 0.0, -25.0, 210.0, 520.0),
    (12.68, 0.0, -31.7, 186.0, 520.0),
]
DOWN_150_MS: list[Row] = [
    (9.1, 0.0, 0.0, 400.0, 520.0),
    (9.6, 0.0, 0.0, 399.6, 500.0),
    (10.11, 140.5, 0.0, 398.9, 360.0),
    (10.61, 0.0, -112.5, 327.1, 640.0),
    (11.11, 0.0, -62.5, 239.7, 560.0),
    (11.62, 0.0, -46.5, 190.4, 560.0),
]
DOWN_300_MS: list[Row] = [
    (12.63, 0.0, -31.2, 120.8, 540.0),
    (13.13, 243.5, 0.0, 86.1, 260.0),
    (13.64, 0.0, -26.5, 63.4, 520.0),
    (14.14, 0.0, 0.0, 50.0, 520.0),
    (14.65, 0.0, 0.0, 50.0, 500.0),
]
DOWN_600_MS: list[Row] = [
    (15.66, 0.0, 0.0, 50.0, 500.0),
    (16.16, 229.1, 0.0, 50.0, 260.0),
    (16.66, 343.8, 0.0, 38.9, 180.0),
    (17.17, 0.0, 0.0, 40.0, 500.0),
    (17.67, 0.0, 0.0, 40.0, 520.0),
]
BOT_STANDS_STILL_1200_MS: list[Row] = [
    (29.54, 0.0, 0.0, 488.0, 500.0),
    (31.09, 363.7, 0.0, 474.0, 600.0),
    (31.59, 0.0, 0.0, 427.9, 760.0),
    (32.1, 0.0, 0.0, 991.5, 400.0),
    (32.6, 0.0, 0.0, 855.8, 480.0),
    (33.12, 0.0, 0.0, 855.2, 420.0),
    (33.62, 0.0, 0.0, 858.5, 400.0),
]
BOT_STANDS_STILL_2_S: list[Row] = [
    (40.4, 0.0, -35.2, 679.3, 540.0),
    (42.78, 459.0, -47.4, 397.2, 1980.0),
    (43.28, 0.0, 0.0, 290.0, 500.0),
    (43.79, 0.0, 0.0, 760.0, 500.0),
    (44.29, 0.0, 0.0, 1065.4, 520.0),
    (44.79, 0.0, -7.9, 1068.8, 500.0),
    (45.3, 0.0, -22.7, 1047.7, 520.0),
    (45.8, 0.0, 0.0, 1039.6, 520.0),
]
A_PAUSE_SWALLOWS_THE_DELAY: list[Row] = [
    (25.5, 0.0, -7.5, 1449.6, 520.0),
    (26.0, 0.0, -36.3, 1332.7, 520.0),
    (26.51, 0.0, -31.7, 1190.7, 540.0),
    (27.02, 0.0, -31.1, 1033.5, 460.0),
    (27.52, 0.0, 0.0, 540.0, 40.0),
    (28.02, 0.0, -25.2, 516.7, 420.0),
    (28.53, 0.0, -18.7, 493.5, 400.0),
    (29.03, 0.0, 0.0, 488.5, 400.0),
]
NOTHING_FOR_A_SECOND: list[Row] = [
    (15.0, 0.0, 0.0, 50.0, 500.0),
    (15.5, 500.0, 0.0, 0.0, 0.0),
    (16.0, 500.0, 0.0, 0.0, 0.0),
    (16.5, 0.0, 0.0, 50.0, 500.0),
    (17.0, 0.0, 0.0, 50.0, 500.0),
    (17.5, 0.0, 0.0, 50.0, 500.0),
]
SINGLE_PACKETS: list[Row] = [(n / 2, 20.0, 0.0, 50.0, 480.0) for n in range(40)]


def found(rows: Sequence[Row], speech: Sequence[bool] | None = None) -> list[tuple[float, float]]:
    """What a reception says of a track that played well until then, in seconds."""
    reception, made_up, stretched, held, played, spans = Reception(), 0.0, 0.0, 0.0, 0, []
    first_s, _, _, delay, _ = rows[0]
    start = [(first_s - n / 2, 0.0, 0.0, delay, 500.0) for n in (2, 1)]
    for at_s, made_up_ms, stretched_ms, delay_ms, played_ms in [*start, *rows]:
        made_up += made_up_ms / 1000
        stretched += stretched_ms / 1000
        played += round(played_ms * 48)
        held += delay_ms / 1000 * round(played_ms * 48)
        total = Buffered(held_s=held, samples=played, made_up_s=made_up, stretched_s=stretched)
        index = next((i for i, row in enumerate(rows) if row[0] == at_s), 0)
        speaking = speech is None or speech[index]
        span = reception.look(round(at_s * 16_000), total, speaking=speaking)
        if span is not None:
            spans.append((span[0] / 16_000, span[1] / 16_000))
    return spans


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(SERVER_STANDS_STILL_400_MS, id="late, and played later"),
        pytest.param(SERVER_STANDS_STILL_1500_MS, id="late, and played much later"),
        pytest.param(AND_CATCHES_UP, id="cut short to catch up"),
        pytest.param(BOT_STANDS_STILL_1200_MS, id="waited in the socket"),
        pytest.param(BOT_STANDS_STILL_2_S, id="waited there for long"),
        pytest.param(A_PAUSE_SWALLOWS_THE_DELAY, id="a pause swallows the delay"),
        pytest.param(SINGLE_PACKETS, id="a packet now and then"),
    ],
)
def test_a_wavering_network_loses_nothing(rows: list[Row]) -> None:
    assert found(rows) == []


@pytest.mark.parametrize(
    ("rows", "span"),
    [
        pytest.param(DOWN_150_MS, (9.6, 10.21), id="0.15 s"),
        pytest.param(DOWN_300_MS, (12.63, 13.23), id="0.3 s"),
        pytest.param(DOWN_600_MS, (15.66, 16.76), id="0.6 s, over two looks"),
        pytest.param(NOTHING_FOR_A_SECOND, (15.0, 16.6), id="1 s, over three looks"),
    ],
)
def test_what_never_came_is_found_where_it_was(rows: list[Row], span: tuple[float, float]) -> None:
    assert found(rows) == [pytest.approx(span, abs=0.02)]


@pytest.mark.parametrize(
    ("speech", "is_missing"),
    [
        pytest.param([False] * 5, False, id="in silence"),
        pytest.param([True, False, False, False, False], True, id="the end of a sentence"),
        pytest.param([False, False, True, True, True], True, id="its beginning"),
    ],
)
def test_only_speech_can_be_missing(speech: list[bool], is_missing: bool) -> None:
    assert bool(found(DOWN_300_MS, speech)) == is_missing


def test_two_losses_are_two() -> None:
    later = [(at_s + 3, *rest) for at_s, *rest in DOWN_600_MS]
    assert len(found([*DOWN_600_MS, *[(a, b, c, d, e) for a, b, c, d, e in later]])) == 2


def test_a_level_that_falls_for_ever_is_taken_as_it_is() -> None:
    falling = [(17.67 + n / 2, 0.0, 0.0, 40.0 + 70.0 * n, 500.0) for n in range(1, 12)]
    lost = [(16.66, 2000.0, 0.0, 40.0, 180.0)]
    assert len(found([*DOWN_600_MS[:1], *lost, *falling])) == 1
