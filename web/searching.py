"""Full-text search over what was said."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from db import search
from web.access import Who
from web.call import Call
from web.cursors import cursor_of, place_of
from web.route import AnyRoute, Line, Model, Route
from web.transcripts import SegmentView, view

_NO_ROW = UUID(int=0)
"""Hits are paged by time alone: two speakers at the same microsecond are not worth more."""
Words = Annotated[Line, Field(min_length=1, max_length=200)]


class SessionSearchQuery(Model):
    """What to look for."""

    q: Words
    """Words; "a phrase", OR and -without are understood. Inflections match where we know how."""
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[Line, Field(max_length=100)] | None = None
    """`nextCursor` of the page before."""


class SearchQuery(SessionSearchQuery):
    """What to look for, and where."""

    space_id: Annotated[Line, Field(max_length=64)] | None = None
    """Id or slug of one space; absent: all of yours."""


class HitView(Model):
    """A segment that was found."""

    slug: str
    title: str | None
    headline: str
    """Part of the text; found words stand between U+E000 and U+E001."""
    segment: SegmentView


class HitList(Model):
    """What was found, newest speech first."""

    hits: list[HitView]
    next_cursor: str | None
    """Give it back as `cursor` for what was said before; null on the last page."""


async def in_session(call: Call[SessionSearchQuery, None]) -> HitList:
    scope = search.Scope(sees_all=False, user_id=None, session=call.session.id)
    before = None if call.query.cursor is None else place_of(call.query.cursor)[0]
    return await _found(call, call.query, scope, before)


async def everywhere(call: Call[SearchQuery, None]) -> HitList:
    user = call.caller.user
    scope = search.Scope(
        sees_all=call.caller.is_open,
        user_id=user.id if user else None,
        space_slugs=tuple(user.spaces) if user else (),
        space=call.query.space_id,
    )
    before = None if call.query.cursor is None else place_of(call.query.cursor)[0]
    return await _found(call, call.query, scope, before)


async def _found(
    call: Call[SearchQuery, None] | Call[SessionSearchQuery, None],
    query: SessionSearchQuery,
    scope: search.Scope,
    before: datetime | None,
) -> HitList:
    async with call.connection() as conn:
        hits = await search.search(conn, query.q, scope, limit=query.limit + 1, before=before)
    shown = hits[: query.limit]
    last = shown[-1].stored.segment if len(hits) > query.limit else None
    return HitList(
        hits=[
            HitView(slug=h.slug, title=h.title, headline=h.headline, segment=view(h.stored))
            for h in shown
        ],
        next_cursor=None if last is None else cursor_of(last.started_at, _NO_ROW),
    )


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/search",
        handler=in_session,
        who=Who.READER,
        summary="Search one session",
        tag="search",
        query=SessionSearchQuery,
        answer=HitList,
        refusals=frozenset({404}),
    ),
    Route(
        method="GET",
        path="/api/search",
        handler=everywhere,
        who=Who.USER,
        summary="Search all sessions of your spaces",
        tag="search",
        query=SearchQuery,
        answer=HitList,
        refusals=frozenset({404}),
    ),
)
