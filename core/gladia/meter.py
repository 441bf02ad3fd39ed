"""Audio that Gladia received, told in few events."""

from collections.abc import Callable

from core.audio import samples, seconds
from core.gladia.events import Event, Usage


class Meter:
    """Counts acknowledged samples over all sessions of one speaker."""

    def __init__(self, step_s: float, emit: Callable[[Event], None]) -> None:
        self._step = samples(step_s)
        self._emit = emit
        self._samples = 0

    def add(self, count: int) -> None:
        self._samples += count
        if self._samples >= self._step:
            self.report()

    def report(self) -> None:
        """Tells what was counted since the last time."""
        if self._samples:
            self._emit(Usage(seconds(self._samples)))
            self._samples = 0
