"""The state that the owner is told about."""

from core.gladia.events import State, StateChanged
from core.gladia.leg import Leg
from core.gladia.legs import State as LegState
from core.gladia.refusals import Refusal

LOST = StateChanged("reconnecting", "connection_lost")
UNSTABLE = StateChanged("failed", "gladia_unstable")


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
        return _refused(leg.refusal)
    return None


def _refused(refusal: Refusal) -> StateChanged:
    state: State = "reconnecting"
    if refusal.is_permanent:
        state = "failed"
    elif refusal.reason == "gladia_busy":
        state = "queued"
    return StateChanged(state, refusal.reason, refusal.status)
