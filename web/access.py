"""What a caller may do: one word per route, one rule per word."""

from enum import Enum
from typing import assert_never

from core.errors import AccessError
from db.sessions import SessionRow
from web.callers import Caller


class Who(Enum):
    """Who may use a route. The value is the sentence that the API reference shows."""

    PUBLIC = "everybody"
    ANYBODY = "everybody; a credential that does not hold is refused"
    LINK = "whoever has the session's link; a credential that does not hold is refused"
    USER = "signed-in users"
    READER = "members of the session's space and its participants"
    MEMBER = "members of the session's space and its creator"
    SEAT = "a participant, by room token"
    SERVICE = "our own services, by service secret"
    SIGNED = "LiveKit, by signature"

    @property
    def reads_credentials(self) -> bool:
        """Whether a credential that does not hold is refused here."""
        return self not in {Who.PUBLIC, Who.SIGNED}

    @property
    def can_refuse(self) -> bool:
        """Whether somebody without any credential may be turned away."""
        return self not in {Who.PUBLIC, Who.ANYBODY, Who.LINK}


def is_member(caller: Caller, session: SessionRow) -> bool:
    """Whether the caller belongs to the session's space, or created the session."""
    if caller.is_open:
        return True
    if caller.user is None:
        return False
    return (
        session.member_role is not None
        or session.space_slug in caller.user.spaces
        or session.created_by == caller.user.id
    )


def is_reader(caller: Caller, session: SessionRow) -> bool:
    return is_member(caller, session) or caller.has_joined(session.slug)


def admit(who: Who, caller: Caller) -> None:
    """Lets the caller as far as the session itself, which may ask for more.

    Raises:
        AccessError: 401 for somebody unknown, 403 for somebody known who may not.
    """
    match who:
        case Who.PUBLIC | Who.ANYBODY | Who.LINK | Who.SIGNED:
            return
        case Who.USER:
            allowed = caller.is_open or caller.user is not None
        case Who.READER:
            allowed = caller.is_open or caller.is_known or caller.guest is not None
        case Who.MEMBER:
            allowed = caller.is_open or caller.user is not None
        case Who.SEAT:
            allowed = caller.seat is not None
        case Who.SERVICE:
            allowed = caller.is_service
        case _:
            assert_never(who)
    if not allowed:
        raise _refusal(caller)


def admit_to(who: Who, caller: Caller, session: SessionRow) -> None:
    """Lets the caller into one session.

    Raises:
        AccessError: as for `admit`.
    """
    admit(who, caller)
    match who:
        case Who.PUBLIC | Who.ANYBODY | Who.LINK | Who.USER | Who.SERVICE | Who.SIGNED:
            return
        case Who.READER:
            allowed = is_reader(caller, session)
        case Who.MEMBER:
            allowed = is_member(caller, session)
        case Who.SEAT:
            allowed = caller.seat is not None and caller.seat.slug == session.slug
        case _:
            assert_never(who)
    if not allowed:
        raise _refusal(caller)


def _refusal(caller: Caller) -> AccessError:
    if caller.is_known or caller.guest is not None:
        return AccessError("forbidden", "this is not yours to use", status=403)
    return AccessError("unauthorized", "sign in, or send a bearer token", status=401)
