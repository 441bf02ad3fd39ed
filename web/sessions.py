"""Sessions over HTTP: create, list, read, change, end, delete."""

import logging
import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from core.errors import AccessError, Conflict, NotFound, ProviderError
from core.ids import Slug, short_id, uuid7
from db import sessions, spaces, users
from db.pool import Connection, transaction
from db.sessions import SessionFilter, SessionRow
from web.access import Who, is_member, is_reader
from web.call import Call
from web.callers import Caller, profile
from web.cursors import cursor_of, place_of
from web.limits import WRITES
from web.problems import Problem
from web.route import AnyRoute, LaxModel, Line, Model, NoQuery, Route

log = logging.getLogger(__name__)

Status = Literal["ACTIVE", "ENDED"]
Languages = Annotated[list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]], Field(max_length=20)]

_SLUG_CHARS = 8
_SLUG_TRIES = 5


class NewSession(LaxModel):
    """A session to create."""

    title: Line | None = None
    space_id: Annotated[str, Field(max_length=64)] | None = None
    """Id or slug of the space; absent: the caller's first one."""
    languages: Languages | None = None
    """Languages that will be spoken; absent: the installation's."""


class SessionChange(Model):
    """What to change; absent fields stay."""

    title: Line | None = None
    languages: Languages | None = None


class SessionView(Model):
    """A session. Whoever only has its link sees its slug, title, status and times."""

    slug: str
    title: str | None
    status: Status
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    people: int
    participants: int
    languages: list[str]
    space_id: str | None
    created_by_user_id: str | None
    ai_title: str | None
    ai_current_topic: str | None
    is_member: bool
    """Whether the caller may change, end and delete it."""
    can_read: bool
    """Whether the caller may read its transcript."""


class SessionList(Model):
    """One page of sessions, newest first."""

    sessions: list[SessionView]
    next_cursor: str | None
    """Give it back as `cursor` for the next page; null on the last one."""


class ListQuery(Model):
    """Which sessions to list."""

    status: Status | None = None
    q: Annotated[str, Field(max_length=200, pattern=r"^[^\u0000]*$")] | None = None
    """Part of the title, in any case."""
    space_id: Annotated[str, Field(max_length=64, pattern=r"^[^\u0000]*$")] | None = None
    """Id or slug of a space."""
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    cursor: Annotated[Line, Field(max_length=100)] | None = None
    """`nextCursor` of the page before."""


class Success(Model):
    """It is done."""

    success: Literal[True] = True


async def create(call: Call[NoQuery, NewSession]) -> SessionView:
    caller, wanted = call.caller, call.body
    async with call.connection() as conn:
        if caller.user is not None:
            await users.remember(conn, caller.user.id, **profile(caller.user))
        space_id = await _home(conn, caller, wanted.space_id)
        slug = await _make(conn, caller, wanted, space_id)
        row = await sessions.find(conn, slug, caller.user.id if caller.user else None)
    return view(row, caller)


async def list_sessions(call: Call[ListQuery, None]) -> SessionList:
    query, user = call.query, call.caller.user
    wanted = SessionFilter(
        sees_all=call.caller.is_open,
        user_id=user.id if user else None,
        space_slugs=tuple(user.spaces) if user else (),
        space=query.space_id,
        status=None if query.status is None else "ended" if query.status == "ENDED" else "active",
        q=query.q,
        before=None if query.cursor is None else place_of(query.cursor),
    )
    async with call.connection() as conn:
        rows = await sessions.page(conn, wanted, query.limit + 1)
    shown = rows[: query.limit]
    cursor = cursor_of(shown[-1].created_at, shown[-1].id) if len(rows) > query.limit else None
    return SessionList(sessions=[view(row, call.caller) for row in shown], next_cursor=cursor)


async def read(call: Call[NoQuery, None]) -> SessionView:
    return view(call.session, call.caller)


async def change(call: Call[NoQuery, SessionChange]) -> SessionView:
    languages = None if call.body.languages is None else tuple(call.body.languages)
    user = call.caller.user
    async with call.connection() as conn:
        await sessions.update(conn, call.session.id, title=call.body.title, languages=languages)
        row = await sessions.find(conn, call.session.slug, user.id if user else None)
    if languages is not None and row.status == "active":
        try:
            await call.services.rooms.tell_languages(row.slug, languages)
        except ProviderError:
            log.warning("a bot hears of new languages only when it joins again")
    return view(row, call.caller)


async def end(call: Call[NoQuery, None]) -> SessionView:
    """Ends the session; the room is closed first, so that nobody speaks unheard."""
    await _close_room(call)
    user = call.caller.user
    async with call.connection() as conn:
        await sessions.end(conn, call.session.id, datetime.now(UTC))
        row = await sessions.find(conn, call.session.slug, user.id if user else None)
    return view(row, call.caller)


async def delete(call: Call[NoQuery, None]) -> Success:
    await _close_room(call)
    async with call.connection() as conn, transaction(conn):
        await sessions.hide(conn, call.session.id, datetime.now(UTC))
    return Success()


def view(row: SessionRow, caller: Caller) -> SessionView:
    """The session as the caller may see it."""
    can_read = is_reader(caller, row)
    return SessionView(
        slug=row.slug,
        title=row.title,
        status="ENDED" if row.status == "ended" else "ACTIVE",
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        people=row.people,
        participants=row.participants,
        languages=list(row.languages),
        space_id=str(row.space_id) if can_read else None,
        created_by_user_id=str(row.created_by) if can_read and row.created_by else None,
        ai_title=row.ai_title if can_read else None,
        ai_current_topic=row.ai_current_topic if can_read else None,
        is_member=is_member(caller, row),
        can_read=can_read,
    )


async def _close_room(call: Call[NoQuery, None]) -> None:
    if call.session.status == "ended":
        return
    try:
        await call.services.rooms.close(call.session.slug)
    except ProviderError as exc:
        raise Problem(503, "livekit_unavailable", str(exc), {"retry-after": "5"}) from exc


async def _make(conn: Connection, caller: Caller, wanted: NewSession, space_id: UUID) -> Slug:
    for _ in range(_SLUG_TRIES):
        slug = Slug(short_id(secrets.token_bytes(_SLUG_CHARS)))
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        try:
            await sessions.create(
                conn,
                session_id=uuid7(now_ms, secrets.token_bytes(10)),
                slug=slug,
                title=(wanted.title or "").strip() or None,
                space_id=space_id,
                created_by=caller.user.id if caller.user else None,
                languages=tuple(wanted.languages or ()),
            )
        except Conflict:
            continue
        return slug
    raise Conflict("no free slug was found")


async def _home(conn: Connection, caller: Caller, wanted: str | None) -> UUID:
    """The space of a new session: the wanted one, else the caller's first."""
    found = await spaces.of_caller(
        conn,
        user_id=caller.user.id if caller.user else None,
        granted=tuple(caller.user.spaces) if caller.user else (),
        sees_all=caller.is_open,
    )
    for space in found:
        if wanted is None or wanted in {space.slug, str(space.id)}:
            return space.id
    if wanted is None:
        raise AccessError("no_space", "you belong to no space yet", status=403)
    raise NotFound("no such space")


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/api/sessions",
        handler=create,
        who=Who.USER,
        summary="Create a session",
        tag="sessions",
        body=NewSession,
        answer=SessionView,
        status=201,
        refusals=frozenset({404, 409}),
        allowance=WRITES,
    ),
    Route(
        method="GET",
        path="/api/sessions",
        handler=list_sessions,
        who=Who.USER,
        summary="List the sessions of your spaces",
        tag="sessions",
        query=ListQuery,
        answer=SessionList,
        refusals=frozenset({404}),
        has_etag=True,
    ),
    Route(
        method="GET",
        path="/api/sessions/{slug}",
        handler=read,
        who=Who.LINK,
        summary="Read a session",
        tag="sessions",
        answer=SessionView,
    ),
    Route(
        method="PATCH",
        path="/api/sessions/{slug}",
        handler=change,
        who=Who.MEMBER,
        summary="Change a session's title or languages",
        tag="sessions",
        body=SessionChange,
        answer=SessionView,
        allowance=WRITES,
    ),
    Route(
        method="POST",
        path="/api/sessions/{slug}/end",
        handler=end,
        who=Who.MEMBER,
        summary="End a session and close its room",
        tag="sessions",
        answer=SessionView,
        allowance=WRITES,
    ),
    Route(
        method="DELETE",
        path="/api/sessions/{slug}",
        handler=delete,
        who=Who.MEMBER,
        summary="Delete a session with everything that was said",
        tag="sessions",
        answer=Success,
        allowance=WRITES,
    ),
)
