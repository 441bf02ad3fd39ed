"""One clock per session: monotonic seconds and UTC of the same instant, read once.

The system's clock may be set while a meeting runs; the monotonic one is not. Every time stamp of
a session comes from here, so that lines of different speakers keep their order.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from core.source_clock import Buffered, SourceClock

LATENCY_S: Final = 0.01
"""From a microphone to our frame without the jitter buffer: Opus, resampling, and the frame's own
rounding. Measured 10 to 20 ms on one machine; the network's own transit comes on top, unseen."""
JITTER_BUFFER_S: Final = 0.03
"""What WebRTC's buffer holds where packets come evenly."""


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

    def __init__(self, session: SessionClock) -> None:
        self._session = session
        self._source = SourceClock(LATENCY_S, JITTER_BUFFER_S)

    @property
    def position(self) -> int:
        """Of the next sample."""
        return self._source.position

    @property
    def delay_s(self) -> float:
        """Seconds from a microphone to us, by the last measurement."""
        return self._source.delay_s

    def interrupt(self) -> None:
        """The track is gone; time goes on until the next one."""
        self._source.interrupt()

    def frame(self, count: int) -> int:
        """Notes that `count` samples arrived now; returns the position of the first."""
        return self._source.frame(count, monotonic())

    def buffered(self, total: Buffered) -> None:
        """Notes what the track's jitter buffer has done so far."""
        self._source.buffered(total)

    def utc(self, position: int) -> datetime:
        """When the sample was captured."""
        return self._session.utc(self._source.captured_at(position))
