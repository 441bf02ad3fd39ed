"""Lost audio, gathered into few reports."""

from collections.abc import Callable

from core.gladia.events import AudioLost, Event


class Losses:
    """Joins losses that follow each other; a report is never later than `report_s`."""

    def __init__(self, report_s: float, emit: Callable[[Event], None]) -> None:
        self._report_s = report_s
        self._emit = emit
        self._open: AudioLost | None = None
        self._due_at: float | None = None

    def add(self, start: int, end: int, reason: str, now: float) -> None:
        if start >= end:
            return
        known = self._open
        if known is not None and known.reason == reason and known.end_position == start:
            self._open = AudioLost(known.start_position, end, reason)
            return
        self.report()
        self._open = AudioLost(start, end, reason)
        self._due_at = now + self._report_s

    def report(self) -> None:
        """Tells what is known so far."""
        if self._open is not None:
            self._emit(self._open)
        self._open = self._due_at = None

    def deadline(self) -> float | None:
        return self._due_at

    def handle_deadline(self, now: float) -> None:
        if self._due_at is not None and now >= self._due_at:
            self.report()
