"""Which line goes out next: finals in order and at once, interims newest-wins and not too often.

A viewer needs each final once, and of an interim only the latest version. Publishing costs CPU in
the job, the server and each client, so interims leave at most four times a second per speaker.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from core.ids import Identity, UtteranceId
from core.transcript import Segment

INTERIM_INTERVAL_S: Final = 0.25
"""Least time between two interims of one speaker."""
MAX_FINALS: Final = 2000
"""Finals that wait: an hour of a busy room. Beyond it the oldest is given up *as a live message*
and counted; it is in the journal already, so viewers find it by REST."""
_SETTLED: Final = 256
"""Utterances remembered as final, so that a late interim does not come after its final."""


@dataclass(slots=True)
class Counts:
    """For the metrics; grows only."""

    replaced: int = 0
    """Interims that a newer version replaced before they went out."""
    overflowed: int = 0
    """Finals given up because too many waited."""


class Pacer:
    """Lines that wait to be published. Holds one interim per utterance and `max_finals` finals."""

    def __init__(
        self, *, interval_s: float = INTERIM_INTERVAL_S, max_finals: int = MAX_FINALS
    ) -> None:
        self._interval_s = interval_s
        self._max_finals = max_finals
        self._finals: deque[Segment] = deque()
        self._interims: dict[UtteranceId, Segment] = {}
        self._settled: dict[UtteranceId, None] = {}
        self._sent_at: dict[Identity, float] = {}
        self.counts = Counts()

    @property
    def finals_waiting(self) -> int:
        return len(self._finals)

    @property
    def is_empty(self) -> bool:
        return not self._finals and not self._interims

    def offer(self, segment: Segment) -> None:
        """Takes a version of an utterance; an interim after its final is dropped."""
        if segment.is_final:
            self._offer_final(segment)
        elif segment.utterance_id not in self._settled:
            waiting = self._interims.get(segment.utterance_id)
            if waiting is not None:
                self.counts.replaced += 1
                if waiting.rev > segment.rev:
                    return
            self._interims[segment.utterance_id] = segment

    def take(self, now: float) -> Segment | None:
        """The line to publish now, if one is due."""
        if self._finals:
            return self._finals.popleft()
        for utterance_id, segment in self._interims.items():
            if now >= self._due(segment.identity):
                del self._interims[utterance_id]
                self._sent_at[segment.identity] = now
                return segment
        self._forget_the_quiet(now)
        return None

    def give_back(self, final: Segment) -> None:
        """A final that could not be published: the next one to be taken."""
        self._finals.appendleft(final)

    def deadline(self) -> float | None:
        """When `take` has something, in monotonic seconds; None while nothing waits."""
        if self._finals:
            return float("-inf")
        return min((self._due(one.identity) for one in self._interims.values()), default=None)

    def drop_interims(self) -> None:
        """At the end nobody needs them."""
        self._interims.clear()

    def _offer_final(self, final: Segment) -> None:
        self._interims.pop(final.utterance_id, None)
        self._settled[final.utterance_id] = None
        if len(self._settled) > _SETTLED:
            del self._settled[next(iter(self._settled))]
        if len(self._finals) >= self._max_finals:
            self._finals.popleft()
            self.counts.overflowed += 1
        self._finals.append(final)

    def _due(self, identity: Identity) -> float:
        return self._sent_at.get(identity, float("-inf")) + self._interval_s

    def _forget_the_quiet(self, now: float) -> None:
        if len(self._sent_at) > _SETTLED:
            self._sent_at = {
                who: at for who, at in self._sent_at.items() if now - at < self._interval_s
            }
