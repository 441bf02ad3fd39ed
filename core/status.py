"""How well each speaker and the room are heard, from what voice detection and Gladia say."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from core.gladia.events import State
from core.transcript import Source
from core.wire import InsightsState, RoomState, SpeakerState, SpeakerStatus, status_message

DEAF_AFTER_S: Final = 10.0
"""Seconds of voice without a word after which something is wrong between us and Gladia."""
MAX_DEAF_AFTER_S: Final = 300.0
"""Longest such time: a dog that barks all day must not cause a new Gladia session per bark."""

_STATES: Final[dict[State, SpeakerState]] = {
    "idle": "idle",
    "live": "live",
    "reconnecting": "reconnecting",
    "queued": "queued",
    "failed": "failed",
    "draining": "live",
    "done": "idle",
}
_WORST_FIRST: Final[tuple[SpeakerState, ...]] = (
    "failed",
    "deaf",
    "reconnecting",
    "queued",
    "live",
    "idle",
)


class LaneHealth:
    """One audio source's state. Knows the one failure that Gladia does not report: deafness."""

    def __init__(self, deaf_after_s: float = DEAF_AFTER_S) -> None:
        self._first_deaf_after_s = deaf_after_s
        self._deaf_after_s = deaf_after_s
        self._state: State = "idle"
        self._reason: str | None = None
        self._voice_s = 0.0
        """Voice heard since the last word or the last alarm."""
        self._deaf = False
        self._lost_s = 0.0

    def changed(self, state: State, reason: str | None) -> None:
        """Gladia's side has a new state."""
        self._state, self._reason = state, reason
        if state != "live":
            self._voice_s = 0.0

    def text(self) -> None:
        """Words came: whatever was wrong is over."""
        self._voice_s, self._deaf = 0.0, False
        self._deaf_after_s = self._first_deaf_after_s

    def voice(self, duration_s: float) -> bool:
        """Voice was detected; True when it is time to give up the Gladia session for a new one.

        After an alarm twice as much voice must pass before the next: music and noise are voice
        to some detectors, and have no words.
        """
        if self._state != "live":
            return False
        self._voice_s += duration_s
        if self._voice_s < self._deaf_after_s:
            return False
        self._voice_s = 0.0
        self._deaf = True
        self._deaf_after_s = min(self._deaf_after_s * 2, MAX_DEAF_AFTER_S)
        return True

    def lost(self, duration_s: float) -> None:
        """Audio is known to be lost."""
        self._lost_s += duration_s

    def status(self, identity: str) -> SpeakerStatus:
        if self._deaf and self._state in {"live", "idle"}:
            state: SpeakerState = "deaf"
            reason: str | None = "no_text"
        else:
            state, reason = _STATES[self._state], self._reason
        return SpeakerStatus(identity=identity, state=state, reason=reason, lost_s=self._lost_s)


def worst(statuses: list[SpeakerStatus]) -> SpeakerStatus:
    """One status for a speaker with several sources: the worst state, and all that is lost."""
    by_state = min(statuses, key=lambda status: _WORST_FIRST.index(status.state))
    return replace(by_state, lost_s=sum(status.lost_s for status in statuses))


class StatusBoard:
    """The room's state and everybody's, and whether viewers should be told."""

    def __init__(self, *, repeat_s: float = 5.0, min_interval_s: float = 0.5) -> None:
        """Sets the rhythm.

        Args:
            repeat_s: an unchanged status is repeated this often, for those who join late.
            min_interval_s: changes are told at most this often.
        """
        self._repeat_s = repeat_s
        self._min_interval_s = min_interval_s
        self._room: RoomState = "waiting"
        self._insights: InsightsState | None = None
        self._source: Source | None = None
        self._speakers: dict[str, SpeakerStatus] = {}
        self._changed = True
        self._told_at = float("-inf")

    def room(self, state: RoomState) -> None:
        self._changed |= state != self._room
        self._room = state

    def source(self, source: Source) -> None:
        """Says what carries the room's audio to us."""
        self._changed |= source != self._source
        self._source = source

    def insights(self, state: InsightsState) -> None:
        self._changed |= state != self._insights
        self._insights = state

    def speaker(self, status: SpeakerStatus) -> None:
        self._changed |= self._speakers.get(status.identity) != status
        self._speakers[status.identity] = status

    def forget(self, identity: str) -> None:
        """This speaker left."""
        self._changed |= self._speakers.pop(identity, None) is not None

    def message(self, slug: str, ts: datetime, now: float) -> bytes:
        """The status message; the next one is due after this one."""
        self._changed = False
        self._told_at = now
        speakers = tuple(self._speakers.values())
        return status_message(slug, self._room, speakers, ts, self._insights, self._source)

    def deadline(self) -> float:
        """When the next status message is due, in monotonic seconds."""
        return self._told_at + (self._min_interval_s if self._changed else self._repeat_s)
