"""When a sample was captured, worked out from when it arrived.

Frames come without capture times (the SDK drops RTP time stamps). A frame can be late, never
early, so the *lower envelope* of (arrival - position) is the true offset of the source plus the
smallest delay that was seen. A lower envelope ignores every late frame: a busy event loop does
not move time stamps.

A jitter buffer hands samples out at an even pace however long it holds them, so no arrival shows
that it has grown. What it reports of itself is taken off as well: WebRTC's `jitterBufferDelay`
and `jitterBufferEmittedCount` (https://www.w3.org/TR/webrtc-stats/, RTCInboundRtpStreamStats).
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

from core.audio import SAMPLE_RATE

STALL_S: Final = 0.2
"""Frames that stay this late for `STALL_WINDOW_S` are not late: the source has stood still."""
STALL_WINDOW_S: Final = 2.0
MAX_STRETCHES: Final = 512
"""Stretches kept, and measured delays; what is older was final long ago."""
MAX_WINDOW_S: Final = 3.0
"""A mean delay over a longer time says nothing about its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffered:
    """What a jitter buffer did since its first sample."""

    held_s: float
    """Sum of the seconds that it held each sample; only grows."""
    samples: int
    """That it received and played; only grows."""
    made_up_s: float = 0.0
    """What it played where it had nothing; only grows."""
    stretched_s: float = 0.0
    """What it added to play slower, less what it cut out to catch up."""


@dataclass(slots=True)
class _Stretch:
    """A run of samples without a hole."""

    position: int
    offset_s: float
    """Monotonic seconds minus seconds of position: the smallest seen."""


class SourceClock:
    """Counts a source's samples and tells when each was captured.

    `position` is the number of samples since the source's first one, at 16 kHz. It counts capture
    time: it goes on while the source is muted, and jumps over the time between two publications.
    A stall inside a publication is a break in the map, not in the positions. Positions ascend.
    """

    def __init__(self, latency_s: float = 0.0, usual_delay_s: float = 0.0) -> None:
        """Nothing has arrived yet.

        Args:
            latency_s: from capture to arrival, for even the fastest frame, outside the jitter
                buffer.
            usual_delay_s: in the jitter buffer, as long as nobody measures it.
        """
        self._latency_s = latency_s
        self._usual_delay_s = usual_delay_s
        self._stretches: deque[_Stretch] = deque(maxlen=MAX_STRETCHES)
        self._position = 0
        self._fresh = True
        self._late: deque[tuple[int, float, float]] = deque()
        """(position, offset, arrival) of the frames of the last window that were all late."""
        self._delays: deque[tuple[int, float]] = deque(maxlen=MAX_STRETCHES)
        """(position, seconds in the jitter buffer), each in the middle of where it was measured."""
        self._buffered: tuple[int, Buffered] | None = None

    @property
    def position(self) -> int:
        """Of the next sample."""
        return self._position

    @property
    def delay_s(self) -> float:
        """Seconds from capture to arrival, by the last measurement."""
        buffered_s = self._delays[-1][1] if self._delays else self._usual_delay_s
        return self._latency_s + buffered_s

    def interrupt(self) -> None:
        """The source is gone; the next frame belongs to a new publication of it."""
        self._fresh = True
        self._buffered = None

    def frame(self, count: int, now: float) -> int:
        """Notes that `count` samples arrived now; returns the position of the first of them."""
        if self._fresh:
            self._begin(count, now)
        position = self._position
        self._position += count
        self._observe(position, now - self._position / SAMPLE_RATE, now)
        return position

    def buffered(self, total: Buffered) -> None:
        """Notes what the jitter buffer has done up to the newest frame."""
        before, self._buffered = self._buffered, (self._position, total)
        if before is None:
            return
        since, earlier = before
        samples = total.samples - earlier.samples
        if samples > 0 and since < self._position <= since + MAX_WINDOW_S * SAMPLE_RATE:
            delay_s = (total.held_s - earlier.held_s) / samples
            self._delays.append(((since + self._position) // 2, delay_s))

    def captured_at(self, position: int) -> float:
        """Monotonic seconds at which the sample was captured; may still shift a little."""
        if not self._stretches:
            raise ValueError("no frame has arrived yet")
        index = bisect_right(self._stretches, position, key=lambda stretch: stretch.position)
        stretch = self._stretches[max(index - 1, 0)]
        return position / SAMPLE_RATE + stretch.offset_s - self._latency_s - self._delay_s(position)

    def _delay_s(self, position: int) -> float:
        """Between two measurements in proportion, so that time never jumps."""
        index = bisect_right(self._delays, position, key=lambda delay: delay[0])
        if index == 0:
            return self._delays[0][1] if self._delays else self._usual_delay_s
        start, before_s = self._delays[index - 1]
        if index == len(self._delays):
            return before_s
        end, after_s = self._delays[index]
        return before_s + (after_s - before_s) * (position - start) / (end - start)

    def _begin(self, count: int, now: float) -> None:
        self._fresh = False
        self._late.clear()
        if self._stretches:
            elapsed = now - self._stretches[-1].offset_s
            self._position = max(self._position, round(elapsed * SAMPLE_RATE) - count)
        end_s = (self._position + count) / SAMPLE_RATE
        self._stretches.append(_Stretch(self._position, now - end_s))

    def _observe(self, position: int, offset_s: float, now: float) -> None:
        current = self._stretches[-1]
        if offset_s <= current.offset_s + STALL_S:
            current.offset_s = min(current.offset_s, offset_s)
            self._late.clear()
            return
        self._late.append((position, offset_s, now))
        first_position, _, first_now = self._late[0]
        if now - first_now >= STALL_WINDOW_S:
            smallest = min(offset for _, offset, _ in self._late)
            self._stretches.append(_Stretch(first_position, smallest))
            self._late.clear()
