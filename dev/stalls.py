"""When this process stood still: a busy machine, or a host that gave its CPU to somebody else.

What was said around such a moment sounded at another time than anybody can tell.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

_BEAT_S: Final = 0.02
_STALL_S: Final = 0.15
_BEFORE: Final = timedelta(seconds=1)
"""Sound that was made, but not yet heard."""
_AFTER: Final = timedelta(seconds=5)
"""Until jitter buffers have caught up."""


@dataclass(slots=True)
class Stalls:
    """The times at which this process stood still for more than 0.15 s."""

    found: list[tuple[datetime, datetime]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it stood still altogether."""
        return sum((end - start).total_seconds() for start, end in self.found)

    def disturb(self, start: datetime, end: datetime) -> bool:
        """Whether what sounded from `start` to `end` may have sounded at another time."""
        return any(
            since - _BEFORE <= end and start <= until + _AFTER for since, until in self.found
        )

    @contextmanager
    def watched(self) -> Iterator["Stalls"]:
        """Watches for as long as the context lasts."""
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), name="stalls", daemon=True)
        watch.start()
        try:
            yield self
        finally:
            over.set()
            watch.join()

    def _watch(self, over: threading.Event) -> None:
        while True:
            began = monotonic()
            if over.wait(_BEAT_S):
                return
            took_s = monotonic() - began
            if took_s > _STALL_S:
                now = datetime.now(UTC)
                self.found.append((now - timedelta(seconds=took_s), now))
