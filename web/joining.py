"""Letting people in: room tokens for LiveKit, transcription tokens for the WebSocket."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from core.ids import Identity, Slug, short_id
from db import users
from web.access import Who
from web.call import Call
from web.callers import GUEST_COOKIE, Guest, guest_claims, profile, with_joined
from web.cookies import set_cookie
from web.limits import JOINS
from web.problems import Problem
from web.route import AnyRoute, Line, Model, NoQuery, Route
from web.services import Services

GUEST_DAYS = 30
_NONCE_CHARS = 8
_MARK_CHARS = 12


class TokenQuery(Model):
    """How the participant wants to appear."""

    name: Annotated[Line, Field(max_length=100)] | None = None
    """Display name of a guest; a signed-in user's own name has priority."""
    identity: Annotated[Line, Field(max_length=200)] | None = None
    """The identity of an earlier answer, to be the same participant after a reload."""


class RoomToken(Model):
    """What a LiveKit client needs to connect."""

    token: str
    room_name: str
    identity: str
    server_url: str


class TranscriptionToken(Model):
    """What the transcription WebSocket asks for."""

    token: str
    expires_at: datetime


async def room_token(call: Call[TokenQuery, None]) -> RoomToken:
    session = call.session
    if session.status == "ended":
        raise Problem(409, "session_ended", "this session has ended")
    guest = call.caller.guest or new_guest()
    name = await _display_name(call, guest)
    identity = _own_identity(call, guest) or _new_identity(call.services, session.slug, guest.id)
    attributes = {"roomscribe.role": "host" if _is_host(call) else "guest"}
    user = call.caller.user
    if user is not None:
        attributes["roomscribe.user_id"] = str(user.id)
    known = Guest(id=guest.id, name=guest.name if user else name, joined=guest.joined)
    remember_guest(call.services, call.cookies, with_joined(known, session.slug))
    token = call.services.rooms.token(
        slug=session.slug, identity=identity, name=name, attributes=attributes
    )
    call.headers["cache-control"] = "no-store"
    return RoomToken(
        token=token,
        room_name=session.slug,
        identity=identity,
        server_url=call.services.settings.livekit_public_url,
    )


async def transcription_token(call: Call[NoQuery, None]) -> TranscriptionToken:
    caller, session = call.caller, call.session
    ttl_s = call.services.settings.token_ttl_s
    claims = {
        "sessionSlug": session.slug,
        "sessionId": str(session.id),
        "userId": str(caller.user.id) if caller.user else None,
    }
    return TranscriptionToken(
        token=call.services.signer.mint("transcription", claims, ttl_s=ttl_s),
        expires_at=datetime.now(UTC) + timedelta(seconds=ttl_s),
    )


def new_guest() -> Guest:
    return Guest(id=short_id(secrets.token_bytes(16)))


def remember_guest(services: Services, response: Response, guest: Guest) -> None:
    """Gives the browser its guest cookie."""
    ttl_s = GUEST_DAYS * 86_400
    token = services.signer.mint("guest", guest_claims(guest), ttl_s=ttl_s)
    set_cookie(services.settings, response, GUEST_COOKIE, token, ttl_s)


def _is_host(call: Call[TokenQuery, None]) -> bool:
    """The creator; in open mode, where nobody is known, whoever comes first."""
    session, user = call.session, call.caller.user
    if session.created_by is not None:
        return user is not None and user.id == session.created_by
    return call.caller.is_open and session.participants == 0


async def _display_name(call: Call[TokenQuery, None], guest: Guest) -> str:
    user = call.caller.user
    if user is not None:
        async with call.connection() as conn:
            await users.remember(conn, user.id, **profile(user))
            name = await users.display_name(conn, user.id)
        if name:
            return name
    name = (call.query.name or "").strip() or guest.name
    if not name:
        raise Problem(409, "name_required", "say who you are: ?name=")
    return name


def _new_identity(services: Services, slug: Slug, guest_id: str) -> Identity:
    nonce = short_id(secrets.token_bytes(_NONCE_CHARS))
    mark = services.signer.mark("identity", slug, nonce, guest_id, length=_MARK_CHARS)
    return Identity(f"guest-{slug}-{nonce}{mark}")


def _own_identity(call: Call[TokenQuery, None], guest: Guest) -> Identity | None:
    """The identity asked for, if we gave it to this very browser; else None."""
    asked = call.query.identity
    prefix = f"guest-{call.session.slug}-"
    if asked is None or not asked.startswith(prefix):
        return None
    rest = asked.removeprefix(prefix)
    nonce, mark = rest[:_NONCE_CHARS], rest[_NONCE_CHARS:]
    expected = call.services.signer.mark(
        "identity", call.session.slug, nonce, guest.id, length=_MARK_CHARS
    )
    return Identity(asked) if secrets.compare_digest(mark.encode(), expected.encode()) else None


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/token",
        handler=room_token,
        who=Who.LINK,
        summary="Join: get a LiveKit token under a new identity",
        tag="joining",
        query=TokenQuery,
        answer=RoomToken,
        refusals=frozenset({409}),
        allowance=JOINS,
    ),
    Route(
        method="GET",
        path="/api/sessions/{slug}/transcription/token",
        handler=transcription_token,
        who=Who.READER,
        summary="Get a token for the transcription WebSocket",
        tag="joining",
        answer=TranscriptionToken,
    ),
)
