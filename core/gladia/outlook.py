"""The state that the owner is told about, and the limit on new sessions behind part of it."""

from core.gladia.events import State, StateChanged
from core.gladia.leg import Leg
from core.gladia.legs import State as LegState
from core.gladia.limits import Limits
from core.gladia.refusals import Refusal

LOST = StateChanged("reconnecting", "connection_lost")
UNSTABLE = StateChanged("failed", "gladia_unstable")


class Replacements:
    """At most so many sessions may follow one that broke; then there is a long pause."""

    def __init__(self, limits: Limits) -> None:
        self.blocked_until: float | None = None
        """No session may be opened before."""
        self._limits = limits
        self._made_at: list[float] = []

    def may(self, now: float) -> bool:
        since = now - self._limits.new_sessions_per_s
        self._made_at = [at for at in self._made_at if at > since]
        return len(self._made_at) < self._limits.new_sessions

    def note(self, now: float) -> None:
        """A session broke and will be followed by another."""
        if not self.may(now):
            self.blocked_until = now + self._limits.degraded_retry_s
        self._made_at.append(now)

    def handle_deadline(self, now: float) -> None:
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None


def outlook(leg: Leg, waited_s: float, notice_s: float) -> StateChanged | None:
    """The state that the current leg means; None where it says nothing new.

    Args:
        leg: the current leg.
        waited_s: seconds since it began.
        notice_s: a wait for a slot is told from here on.
    """
    if leg.is_recovered or leg.state is LegState.STOPPING:
        return StateChanged("live")
    if leg.state is LegState.QUEUED:
        return StateChanged("queued", "no_slot") if waited_s >= notice_s else None
    if leg.state is LegState.RESUMING:
        return LOST
    if leg.state is LegState.WAITING and leg.refusal is not None:
        return refused(leg.refusal)
    return None


def refused(refusal: Refusal) -> StateChanged:
    """The state behind a refusal to open a session."""
    state: State = "reconnecting"
    if refusal.is_permanent:
        state = "failed"
    elif refusal.reason == "gladia_busy":
        state = "queued"
    return StateChanged(state, refusal.reason, refusal.status)
