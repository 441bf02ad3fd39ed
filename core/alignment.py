"""How far the audio of a mix lies behind what browsers report about their speakers.

The delay of an egress differs from one installation to the next. Both sides tell when anybody
speaks: the audio by its loudness, the browsers by their reports. The lag at which the two agree
best is the correction. It moves slowly, because one wrong guess would rename a minute of speech.
"""

from math import sqrt

from core.speaking import Speaking

CELL_S = 0.1
WINDOW_S = 60.0
LOW_S, HIGH_S = -1.0, 5.0
"""Range of lags that are tried."""
MAX_STEP_S = 0.2
"""A correction moves at most so far in one window."""
MIN_SPEECH_S = 10.0
"""Windows with less speech on either side say nothing."""
MIN_AGREEMENT = 0.3
"""Correlation below which a window says nothing."""
_CELLS = round(WINDOW_S / CELL_S)


class Alignment:
    """The correction of one mixed stream.

    `correction_s` is added to a time of the audio to find the same moment among the reports.
    """

    def __init__(self) -> None:
        self.correction_s = 0.0
        self._voiced: dict[int, bool] = {}
        self._due: float | None = None

    def hear(self, at: float, *, voiced: bool) -> None:
        """Notes one cell of 0.1 s of audio, by its time of capture in monotonic seconds."""
        cell = round(at / CELL_S)
        self._voiced[cell] = voiced
        if len(self._voiced) > 3 * _CELLS:
            for old in sorted(self._voiced)[:_CELLS]:
                del self._voiced[old]

    def calibrate(self, speaking: Speaking, now: float) -> float | None:
        """Once a minute: compares the last minute, moves the correction; returns the lag found."""
        if self._due is None:
            self._due = now + WINDOW_S
        if now < self._due:
            return None
        self._due = now + WINDOW_S
        lag = self._best_lag(speaking, now)
        if lag is not None:
            step = lag - self.correction_s
            self.correction_s += max(-MAX_STEP_S, min(MAX_STEP_S, step))
        return lag

    def _best_lag(self, speaking: Speaking, now: float) -> float | None:
        last = max(self._voiced, default=0)
        first = last - _CELLS + 1
        heard = sum(1 << n for n in range(_CELLS) if self._voiced.get(first + n))
        margin = round(-LOW_S / CELL_S)
        tried = round((HIGH_S - LOW_S) / CELL_S) + 1
        start = first * CELL_S + LOW_S
        reported = speaking.cells(start, _CELLS + tried, CELL_S, now)
        if min(heard.bit_count(), reported.bit_count()) * CELL_S < MIN_SPEECH_S:
            return None
        mask = (1 << _CELLS) - 1
        scores = [_correlation(heard, reported >> n & mask) for n in range(tried)]
        best = max(scores)
        if best < MIN_AGREEMENT:
            return None
        # Of lags that agree equally well, the middle one.
        equal = [n for n, score in enumerate(scores) if score >= best - 1e-9]
        return (equal[len(equal) // 2] - margin) * CELL_S


def _correlation(one: int, other: int) -> float:
    """Pearson's, of two rows of `_CELLS` bits."""
    a, b, both = one.bit_count(), other.bit_count(), (one & other).bit_count()
    spread = sqrt(a * (_CELLS - a) * b * (_CELLS - b))
    return (both * _CELLS - a * b) / spread if spread else 0.0
