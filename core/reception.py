"""Speech that never arrived: what a jitter buffer had to make up shows where words are missing.

WebRTC fills what the network lost, or what a busy machine had no time for, with sound of its own
(`concealedSamples`, https://www.w3.org/TR/webrtc-stats/, RTCInboundRtpStreamStats). That sound has
no words, and nothing else says that there were any.
"""

from dataclasses import dataclass
from typing import Final

from core.audio import samples

SYLLABLE: Final = samples(0.12)
"""Less than this within one look costs no word; single lost packets are 20 ms."""
_ON_ITS_WAY: Final = samples(0.1)
"""Sound between the jitter buffer and us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a jitter buffer handed out since its first sample; both only grow."""

    samples: int
    """At any rate."""
    made_up: int
    """Of them, because nothing had arrived."""


class Reception:
    """Looks at one track's jitter buffer from time to time."""

    def __init__(self) -> None:
        self._before: tuple[int, Received, bool] | None = None

    def look(self, position: int, total: Received, *, speaking: bool) -> tuple[int, int] | None:
        """Between which positions speech is missing since the look before, or None.

        Args:
            position: of the newest sample, at 16 kHz.
            total: by now.
            speaking: whether there is speech now. What is made up in silence costs nothing.
        """
        before, self._before = self._before, (position, total, speaking)
        if before is None:
            return None
        since, earlier, spoke = before
        handed_out = total.samples - earlier.samples
        if handed_out <= 0 or not (speaking or spoke):
            return None
        missing = (position - since) * (total.made_up - earlier.made_up) / handed_out
        return (since, position + _ON_ITS_WAY) if missing >= SYLLABLE else None
