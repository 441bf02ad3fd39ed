"""One clock per session: monotonic seconds and UTC of the same instant, read once.

The system's clock may be set while a meeting runs; the monotonic one is not. Every time stamp of
a session comes from here, so that lines of different speakers keep their order.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from core.source_clock import SourceClock

LATENCY_S = 0.08
"""From a microphone to our frame: 20 ms Opus, network, jitter buffer, resampling. Measured 40 to
80 ms on one machine (tests/live/test_speaker.py), where stamps come out up to 45 ms early; over
the internet the jitter buffer is longer, and they come out that much late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClock:
    """UTC by the monotonic clock."""

    started_at: datetime
    """UTC."""
    started_s: float
    """Monotonic seconds of the same instant."""

    @classmethod
    def start(cls) -> "SessionClock":
        return cls(started_at=datetime.now(UTC), started_s=monotonic())

    def utc(self, monotonic_s: float) -> datetime:
        return self.started_at + timedelta(seconds=monotonic_s - self.started_s)

    def now(self) -> datetime:
        return self.utc(monotonic())


class SpeakerClock:
    """Maps the positions of one source to UTC capture times."""

    def __init__(self, session: SessionClock, latency_s: float = LATENCY_S) -> None:
        self._session = session
        self._source = SourceClock(latency_s)

    def interrupt(self) -> None:
        """The track is gone; time goes on until the next one."""
        self._source.interrupt()

    def frame(self, count: int) -> int:
        """Notes that `count` samples arrived now; returns the position of the first."""
        return self._source.frame(count, monotonic())

    def utc(self, position: int) -> datetime:
        """When the sample was captured."""
        return self._session.utc(self._source.captured_at(position))
