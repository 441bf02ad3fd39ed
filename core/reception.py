"""Speech that never arrived, by what a jitter buffer says of itself.

Theory of operation. Time is neither made nor lost in a jitter buffer: whatever it filled in, having
received nothing to play (`concealedSamples` and `insertedSamplesForDeceleration`, less
`removedSamplesForAcceleration`, https://www.w3.org/TR/webrtc-stats/, RTCInboundRtpStreamStats), was
either late, so that all that follows is played that much later, or it never came. So the level
`filled - delay` stands still as long as nothing is lost, however much the network wavers, and rises
by exactly what is lost: 0.142, 0.290 and 0.583 s where the network was down for 0.15, 0.3 and
0.6 s, and by nothing where the server stood still for 0.4 s.

Two things blur this. The delay is a mean since the look before, and after a moment in which this
machine itself, or the server for long, stood still it leaves out what waited there: the level is
too high until the buffer has played that. So a loss counts once the level has stayed up and no
longer falls. And a long pause may swallow the delay, which no figure counts: no more can be lost
than was made up.
"""

from dataclasses import dataclass
from typing import Final

from core.audio import samples
from core.source_clock import Buffered

SYLLABLE_S: Final = 0.12
"""Less than this costs no word; single lost packets are 0.02 s."""
_STAYS_S: Final = SYLLABLE_S / 2
"""A buffer that is catching up looks emptier than it is."""
_LOOKS_BEFORE: Final = 2
"""A loss may lie across a look."""
_LOOKS_UP: Final = 3
"""For so many looks the level has to stay up."""
_LOOKS_FALLING: Final = 10
"""A level that still falls after so many is taken as it is."""
_ON_ITS_WAY: Final = samples(0.1)
"""Sound between the jitter buffer and us."""


@dataclass(frozen=True, slots=True)
class _Look:
    position: int
    made_up_s: float
    level_s: float
    is_speech: bool

    def lost_since(self, before: "_Look") -> float:
        """Seconds that never came, as far as is known."""
        return min(self.level_s - before.level_s, self.made_up_s - before.made_up_s)


class Reception:
    """Looks at one track's jitter buffer from time to time."""

    def __init__(self) -> None:
        self._last: Buffered | None = None
        self._before: list[_Look] = []
        self._up: list[_Look] = []

    def look(self, position: int, total: Buffered, *, speaking: bool) -> tuple[int, int] | None:
        """Between which positions speech is missing, once that is certain.

        Args:
            position: of the newest sample, at 16 kHz.
            total: what the jitter buffer has done by now.
            speaking: whether there is speech now. What is lost in silence costs nothing.
        """
        if (delay_s := self._delay_s(total)) is None:
            return None
        level_s = total.made_up_s + total.stretched_s - delay_s
        look = _Look(position, total.made_up_s, level_s, speaking)
        if not self._risen_from(look, _STAYS_S if self._up else SYLLABLE_S):
            self._before, self._up = [*self._before, look][-_LOOKS_BEFORE:], []
            return None
        self._up.append(look)
        if not self._has_settled():
            return None
        since = self._risen_from(self._up[0], SYLLABLE_S)[-1].position
        top_s = look.level_s - _STAYS_S
        until = next(one.position for one in self._up if one.level_s >= top_s)
        is_speech = any(one.is_speech for one in [*self._before, *self._up])
        self._before, self._up = [look], []
        return (since, until + _ON_ITS_WAY) if is_speech else None

    def _has_settled(self) -> bool:
        recent = self._up[-_LOOKS_UP:]
        has_stayed = len(recent) == _LOOKS_UP
        still_falls = max(one.level_s for one in recent) - recent[-1].level_s > _STAYS_S
        return (has_stayed and not still_falls) or len(self._up) >= _LOOKS_FALLING

    def _risen_from(self, look: _Look, by_s: float) -> list[_Look]:
        """The looks before since which so much was lost."""
        return [one for one in self._before if look.lost_since(one) >= by_s]

    def _delay_s(self, total: Buffered) -> float | None:
        """Mean since the last look; None where nothing was played since then."""
        last = self._last
        if last is None:
            self._last = total
            return None
        played = total.samples - last.samples
        if played <= 0:
            return None
        self._last = total
        return (total.held_s - last.held_s) / played
