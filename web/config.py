"""What the page must know before it asks for anything else."""

from typing import Literal

from web.access import Who
from web.call import Call
from web.callers import GUEST_COOKIE, USER_COOKIE, Guest
from web.cookies import drop_cookie
from web.joining import new_guest, remember_guest
from web.limits import SIGN_INS, WRITES
from web.route import AnyRoute, Line, Model, NoQuery, Route


class Limits(Model):
    """Bounds that a client should know."""

    name_chars: int = 100
    title_chars: int = 300
    page_segments: int = 1000
    viewers_per_session: int


class ConfigView(Model):
    """This installation."""

    auth_mode: Literal["open", "closed"]
    sign_in_url: str | None
    """Where to send people to sign in; null where there is no identity provider."""
    live_kit_url: str
    transcription: bool
    """Whether a speech provider is configured."""
    insights: bool
    fallback: bool
    """Whether `POST /api/transcription/start` works here."""
    languages: list[str]
    """Languages of new sessions; empty: recognised by itself."""
    consent_text: str
    limits: Limits


class Me(Model):
    """Who we think you are."""

    kind: Literal["user", "guest", "nobody"]
    user_id: str | None
    name: str
    picture: str | None
    can_create: bool
    """Whether you may create sessions."""


class GuestName(Model):
    """How a guest wants to be called."""

    name: Line


async def read(call: Call[NoQuery, None]) -> ConfigView:
    settings, services = call.services.settings, call.services
    return ConfigView(
        auth_mode=settings.auth_mode,
        sign_in_url="/auth/login" if settings.oidc else None,
        live_kit_url=settings.livekit_public_url,
        transcription=settings.transcription_configured,
        insights=services.insights is not None,
        fallback=services.fallback is not None,
        languages=list(settings.languages),
        consent_text=settings.consent_text,
        limits=Limits(viewers_per_session=settings.viewers_per_session),
    )


async def me(call: Call[NoQuery, None]) -> Me:
    return _me(call, call.caller.guest)


async def rename(call: Call[NoQuery, GuestName]) -> Me:
    known = call.caller.guest or new_guest()
    guest = Guest(id=known.id, name=call.body.name.strip(), joined=known.joined)
    remember_guest(call.services, call.cookies, guest)
    return _me(call, guest)


async def forget(call: Call[NoQuery, None]) -> Me:
    for name in (USER_COOKIE, GUEST_COOKIE):
        drop_cookie(call.services.settings, call.cookies, name)
    return Me(kind="nobody", user_id=None, name="", picture=None, can_create=call.caller.is_open)


def _me(call: Call[NoQuery, None] | Call[NoQuery, GuestName], guest: Guest | None) -> Me:
    user = call.caller.user
    return Me(
        kind="user" if user else "guest" if guest else "nobody",
        user_id=str(user.id) if user else None,
        name=user.name if user else guest.name if guest else "",
        picture=user.picture if user else None,
        can_create=user is not None or call.caller.is_open,
    )


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/config",
        handler=read,
        who=Who.PUBLIC,
        summary="Read what this installation can do",
        tag="operation",
        answer=ConfigView,
        uses_store=False,
        has_etag=True,
    ),
    Route(
        method="GET",
        path="/api/me",
        handler=me,
        who=Who.ANYBODY,
        summary="Read who you are",
        tag="identity",
        answer=Me,
        uses_store=False,
    ),
    Route(
        method="PUT",
        path="/api/me",
        handler=rename,
        who=Who.ANYBODY,
        summary="Set a guest's name, kept in a cookie",
        tag="identity",
        body=GuestName,
        answer=Me,
        allowance=WRITES,
        uses_store=False,
    ),
    Route(
        method="POST",
        path="/api/me/sign-out",
        handler=forget,
        who=Who.ANYBODY,
        summary="Sign out and forget the guest's name",
        tag="identity",
        answer=Me,
        allowance=SIGN_INS,
        uses_store=False,
    ),
)
