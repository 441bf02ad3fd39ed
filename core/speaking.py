"""Who said that they speak, and when: intervals per identity, from what browsers report.

Times are monotonic seconds at which the report arrived, half the round trip taken off. A browser
repeats its report every 2 s while its user speaks; one that falls silent without saying so stops
counting after `HEARTBEAT_S`.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

HEARTBEAT_S = 5.0
KEPT_S = 600.0
"""Intervals that ended this long ago are forgotten: no utterance is that late."""
MAX_IDENTITIES = 500
ON_DELAY_S = 0.5
"""From the first sound of speech to LiveKit's report (0.47-0.67 s were measured)."""
OFF_DELAY_S = 0.9
"""From the last sound to the report of its end (0.3-1.2 s)."""


@dataclass(slots=True)
class _Voice:
    """One identity's intervals, oldest first."""

    past: deque[tuple[float, float]] = field(default_factory=deque)
    since: float | None = None
    heard_at: float = 0.0

    def end(self, at: float) -> None:
        if self.since is not None:
            self.past.append((self.since, max(self.since, at)))
            self.since = None


class Speaking:
    """The intervals of one session's speakers, as they were heard: reporting delays are gone."""

    def __init__(self) -> None:
        self._voices: dict[str, _Voice] = {}

    def report(self, identity: str, *, speaking: bool, now: float) -> None:
        """Notes one report. Those of identities beyond the bound are ignored."""
        self._expire(now)
        voice = self._voices.get(identity)
        if voice is None:
            if len(self._voices) >= MAX_IDENTITIES:
                return
            voice = self._voices[identity] = _Voice()
        voice.heard_at = now
        if not speaking:
            voice.end(now - OFF_DELAY_S)
        elif voice.since is None:
            voice.since = now - ON_DELAY_S

    def forget(self, identity: str, now: float) -> None:
        """The participant left: whatever it said stays, nothing is added."""
        if identity in self._voices:
            self._voices[identity].end(now - OFF_DELAY_S)

    @property
    def reporters(self) -> Collection[str]:
        """Identities that reported at least once and are not forgotten."""
        return self._voices.keys()

    def overlaps(self, start: float, end: float, now: float) -> dict[str, float]:
        """Seconds that each identity spoke in start..end; those with none are left out."""
        self._expire(now)
        found = {}
        for identity, voice in self._voices.items():
            seconds = sum(
                max(0.0, min(end, off) - max(start, on)) for on, off in _intervals(voice, now)
            )
            if seconds > 0:
                found[identity] = seconds
        return found

    def sole(self, start: float, end: float, now: float) -> dict[str, float]:
        """Like `overlaps`; time that several spoke in is shared out among them."""
        shared: dict[str, float] = {}
        edges = {start, end}
        spans = {name: _intervals(voice, now) for name, voice in self._voices.items()}
        for intervals in spans.values():
            edges.update(t for span in intervals for t in span if start < t < end)
        points = sorted(edges)
        for left, right in pairwise(points):
            talking = [
                name
                for name, intervals in spans.items()
                if any(on <= left and right <= off for on, off in intervals)
            ]
            for name in talking:
                shared[name] = shared.get(name, 0.0) + (right - left) / len(talking)
        return shared

    def cells(self, start: float, count: int, cell_s: float, now: float) -> int:
        """Anybody's speech as bits: bit n is set when somebody spoke in cell n."""
        bits = 0
        for voice in self._voices.values():
            for on, off in _intervals(voice, now):
                first = max(0, round((on - start) / cell_s))
                last = min(count, round((off - start) / cell_s))
                if last > first:
                    bits |= ((1 << (last - first)) - 1) << first
        return bits

    def _expire(self, now: float) -> None:
        for identity, voice in list(self._voices.items()):
            if voice.since is not None and now - voice.heard_at > HEARTBEAT_S:
                voice.end(voice.heard_at)
            while voice.past and voice.past[0][1] < now - KEPT_S:
                voice.past.popleft()
            if not voice.past and voice.since is None and now - voice.heard_at > KEPT_S:
                del self._voices[identity]


def _intervals(voice: _Voice, now: float) -> list[tuple[float, float]]:
    current = [(voice.since, now)] if voice.since is not None else []
    return [*voice.past, *current]
