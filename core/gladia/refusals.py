"""What a refusal or a close of Gladia means for us. Two tables, no state."""

from dataclasses import dataclass
from enum import Enum, auto

from core.gladia.commands import Answer, Closed, HttpOutcome, NoAnswer
from core.gladia.messages import SessionCreated, decode_created, describe_refusal


class AfterClose(Enum):
    """What may be tried next."""

    RESUME = auto()
    """The same URL, again and again within the window."""
    RESUME_ONCE = auto()
    """The same URL, one time."""
    NEW_SESSION = auto()
    """This session is over, and so is whatever it had not told us."""
    ENDED = auto()
    """The server ended the session in good order; its result can be fetched."""


_CLOSE_CODES: tuple[tuple[range, AfterClose], ...] = (
    (range(1000, 1001), AfterClose.ENDED),
    (range(1001, 4000), AfterClose.RESUME),  # going away, lost, too big, server fault, restart
    (range(4000, 4400), AfterClose.RESUME_ONCE),  # the SDKs retry it, a user found it final
    (range(4400, 4500), AfterClose.NEW_SESSION),  # 4000 + HTTP status; 4403: job already ended
    (range(4500, 5000), AfterClose.RESUME),  # server error
)
"""SDKs 2.2.1 / 2.1.0 retry 1002-4399 and 4500-9999; 1001 is worth a try as well."""

_RESUMABLE_HANDSHAKES = frozenset({408, 425, 429})


def after_close(closed: Closed) -> AfterClose:
    """The verdict on a socket that ended or never opened."""
    if not closed.opened:
        status = closed.status
        if status is None or status >= 500 or status in _RESUMABLE_HANDSHAKES:  # noqa: PLR2004 - HTTP
            return AfterClose.RESUME
        return AfterClose.NEW_SESSION  # 403: unrecoverable session (gladiaio/sdk 7108324)
    for codes, action in _CLOSE_CODES:
        if closed.code in codes:
            return action
    return AfterClose.RESUME


def has_ended(closed: Closed) -> bool:
    """Whether the server itself says that the session is over, so that nobody need stop it.

    Other close codes from 4400 on say that this connection is (4408: idle), while the session may
    live on and hold its slot for up to three hours. So it may behind a refused handshake.
    """
    return closed.opened and closed.code in _ENDED_CODES


_ENDED_CODES = frozenset({1000, 4403})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no session."""

    reason: str
    """One of the reasons of `events.StateChanged`."""
    is_permanent: bool
    """Only a human can change it: report at once, retry slowly."""
    status: int | None = None
    retry_after_s: float | None = None
    detail: str = ""


_PERMANENT = {401: "gladia_unauthorized", 402: "gladia_quota", 403: "gladia_forbidden"}
_TRANSIENT = {408: "gladia_unavailable", 425: "gladia_unavailable", 429: "gladia_busy"}
_CREATED = range(200, 300)
_CLIENT_ERROR = range(400, 500)


def after_post(outcome: HttpOutcome) -> SessionCreated | Refusal:
    """The session, or why there is none."""
    match outcome:
        case NoAnswer():
            return Refusal("gladia_unavailable", is_permanent=False, detail=outcome.detail)
        case Answer(status=status) if status in _CREATED:
            created = decode_created(outcome.body)
            detail = "unreadable answer"
            return created or Refusal("gladia_unavailable", False, status, None, detail)
        case Answer(status=status):
            detail = describe_refusal(outcome.body)
            reason = _PERMANENT.get(status)
            if reason is None and status in _CLIENT_ERROR and status not in _TRANSIENT:
                reason = "gladia_rejected"  # our request is wrong: waiting will not mend it
            if reason is not None:
                return Refusal(reason, True, status, outcome.retry_after_s, detail)
            transient = _TRANSIENT.get(status, "gladia_unavailable")
            return Refusal(transient, False, status, outcome.retry_after_s, detail)
