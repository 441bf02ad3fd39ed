"""When this machine stood still: this process did not run, or the host gave the CPU to another.

What was said around such a moment sounded at another time than anybody can tell.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

import psutil

_BEAT_S: Final = 0.02
_STALL_S: Final = 0.15
_LOOK_S: Final = 1.0
"""The kernel's account of stolen time is read so often; it is in hundredths of a second."""
_BEFORE: Final = timedelta(seconds=1)
"""Sound that was made, but not yet heard."""
_AFTER: Final = timedelta(seconds=5)
"""Until jitter buffers have caught up."""


def stolen_s() -> float:
    """CPU time since boot, of all CPUs, in which they had work and the host ran another's."""
    return getattr(psutil.cpu_times(), "steal", 0.0)


@dataclass(slots=True)
class Stalls:
    """The times at which this process stood still for more than 0.15 s, or a CPU in one second."""

    found: list[tuple[datetime, datetime]] = field(default_factory=list)
    stolen_s: Callable[[], float] = stolen_s

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
        beat_at = looked_at = monotonic()
        seen_s = self.stolen_s()
        ended = False
        while not ended:
            ended = over.wait(_BEAT_S)
            now = monotonic()
            if now - beat_at > _STALL_S:
                self._add(now - beat_at)
            beat_at = now
            if ended or now - looked_at >= _LOOK_S:
                total_s = self.stolen_s()
                if total_s - seen_s > _STALL_S:
                    self._add(now - looked_at)
                looked_at, seen_s = now, total_s

    def _add(self, length_s: float) -> None:
        now = datetime.now(UTC)
        self.found.append((now - timedelta(seconds=length_s), now))
