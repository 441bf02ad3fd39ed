"""Voice that no text covers yet: what is lost if the bot dies now."""

from typing import Final

from core.audio import samples

_WORD: Final = samples(0.25)
"""Shorter voice after the last word is its own end: detectors and recognisers differ by that."""


class Unwritten:
    """One source's voice, and the text that was written down of it, by position."""

    def __init__(self) -> None:
        self._start: int | None = None
        self._end = 0

    def voice(self, start: int, end: int) -> None:
        """Voice was detected from `start` to `end`; positions ascend."""
        if self._start is None:
            self._start = start
        self._end = end

    def written(self, end: int) -> None:
        """What was said before `end` is stored, as words or as a gap."""
        if self._start is not None and end > self._start:
            self._start = end if end < self._end else None

    @property
    def span(self) -> tuple[int, int] | None:
        """From where to where nothing is written, or None."""
        if self._start is None or self._end - self._start < _WORD:
            return None
        return self._start, self._end
