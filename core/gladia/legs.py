"""States of a leg: one Gladia live session from the wish for it to its last word.

Theory of operation
-------------------
A leg first waits for a slot (QUEUED), since an account has few sessions. Then it asks for a
session (POSTING); a refusal sends it to WAITING, from where it asks again, soon after a passing
trouble, slowly after a permanent one. With a URL it connects (CONNECTING). A fresh session streams
at once (STREAMING). When nothing is sent for 15 s it turns QUIET, where empty chunks keep Gladia
from hanging up.

A lost connection leads to RESUMING, a pause before the same URL is tried again (CONNECTING). A
session that had audio before is PROBING after that: one chunk goes out, and its acknowledgement
tells what the server kept. Only then it is STREAMING again. What cannot be resumed is OVER, and the
chain of legs replays what matters into the next one.

A leg that shall end sends what is left, says stop_recording and waits (STOPPING) for the last
finals and for the server to close. If finals are missing after that, the stored result is asked
for (RECONCILING). ENDED is the end: the slot is free, the leg says nothing any more. An orphan, a
leg whose session may live on at Gladia though nobody needs it, is connected once more only to be
stopped, since a forgotten session holds its slot for up to three hours.

Everything that changes the state is in `TRANSITIONS`; an input that is missing there for a state is
a bug of ours and raises LocalProtocolError.
"""

from collections.abc import Mapping
from enum import Enum, auto

from core.errors import LocalProtocolError


class State(Enum):
    """Where a leg is."""

    QUEUED = auto()
    POSTING = auto()
    WAITING = auto()
    CONNECTING = auto()
    PROBING = auto()
    STREAMING = auto()
    QUIET = auto()
    RESUMING = auto()
    STOPPING = auto()
    RECONCILING = auto()
    OVER = auto()
    ENDED = auto()


class Input(Enum):
    """What happens to a leg."""

    SLOT = auto()
    """A slot was granted."""
    REFUSED = auto()
    """No session, for now."""
    RETRY = auto()
    """The pause is over."""
    CREATED = auto()
    """There is a URL."""
    OPENED = auto()
    """Connected; the server has no audio of ours yet, or nothing is unknown."""
    REOPENED = auto()
    """Connected; what the server holds has to be found out."""
    PROBED = auto()
    """It was found out."""
    IDLE = auto()
    """Nothing was sent for a while."""
    AUDIO = auto()
    """Audio is being sent."""
    DROPPED = auto()
    """The connection was lost or refused, the session may live."""
    LOST = auto()
    """The session cannot be used any more."""
    STOPPED = auto()
    """stop_recording was sent."""
    CLOSED = auto()
    """The server ended the session in good order after our stop."""
    COMPLETE = auto()
    """Nothing is missing, or nothing more can be had."""


class Intent(Enum):
    """What is wanted of a leg."""

    RUN = auto()
    FINISH = auto()
    """Send what is left, stop, wait for the last finals."""
    ORPHAN = auto()
    """Only make sure that the session does not live on at Gladia."""


S, I = State, Input  # noqa: E741 - a table is read by its columns
TRANSITIONS: Mapping[State, Mapping[Input, State]] = {
    S.QUEUED: {I.SLOT: S.POSTING, I.COMPLETE: S.ENDED},
    S.POSTING: {I.CREATED: S.CONNECTING, I.REFUSED: S.WAITING, I.COMPLETE: S.ENDED},
    S.WAITING: {I.RETRY: S.POSTING, I.COMPLETE: S.ENDED},
    S.CONNECTING: {
        I.OPENED: S.STREAMING,
        I.REOPENED: S.PROBING,
        I.DROPPED: S.RESUMING,
        I.LOST: S.OVER,
        I.STOPPED: S.STOPPING,
        I.CLOSED: S.RECONCILING,
        I.COMPLETE: S.ENDED,
    },
    S.PROBING: {
        I.PROBED: S.STREAMING,
        I.DROPPED: S.RESUMING,
        I.LOST: S.OVER,
        I.STOPPED: S.STOPPING,
        I.CLOSED: S.RECONCILING,
        I.COMPLETE: S.ENDED,
    },
    S.STREAMING: {
        I.IDLE: S.QUIET,
        I.DROPPED: S.RESUMING,
        I.LOST: S.OVER,
        I.STOPPED: S.STOPPING,
        I.COMPLETE: S.ENDED,
    },
    S.QUIET: {
        I.AUDIO: S.STREAMING,
        I.IDLE: S.QUIET,
        I.DROPPED: S.RESUMING,
        I.LOST: S.OVER,
        I.STOPPED: S.STOPPING,
        I.COMPLETE: S.ENDED,
    },
    S.RESUMING: {
        I.RETRY: S.CONNECTING,
        I.LOST: S.OVER,
        I.CLOSED: S.RECONCILING,
        I.COMPLETE: S.ENDED,
    },
    S.STOPPING: {
        I.DROPPED: S.RESUMING,
        I.CLOSED: S.RECONCILING,
        I.LOST: S.OVER,
        I.COMPLETE: S.ENDED,
    },
    S.RECONCILING: {I.COMPLETE: S.ENDED},
    S.OVER: {I.RETRY: S.CONNECTING, I.STOPPED: S.STOPPING, I.COMPLETE: S.ENDED},
    S.ENDED: {},
}
"""Out of OVER: the orphan is stopped, over the open socket or over one made for that."""


def after(state: State, event: Input) -> State:
    """The next state. Raises LocalProtocolError where the table has none."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise LocalProtocolError(f"a leg that is {state.name} cannot take {event.name}")
    return following
