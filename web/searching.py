"""Full-text search over what was said."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from db import search
from web.access import Who
from web.call import Call
from web.problems import Problem
from web.route import AnyRoute, Line, Model, Route
from web.transcripts import SegmentView, view

Words = Annotated[Line, Field(min_length=1, max_length=200)]


class SessionSearchQuery(Model):
    """What to look for."""

    q: Words
    """Words; "a phrase", OR and -without are understood. Inflections match where we know how."""
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class SearchQuery(SessionSearchQuery):
    """What to look for, and where."""

    space_id: Annotated[Line, Field(max_length=64)] | None = None
    """Id or slug of one space; absent: all of yours."""
    before: Annotated[Line, Field(max_length=40)] | None = None
    """Only what was spoken before this time (ISO 8601 with a zone), to page on."""


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


async def in_session(call: Call[SessionSearchQuery, None]) -> HitList:
    scope = search.Scope(sees_all=False, user_id=None, session=call.session.id)
    return await _found(call, call.query, scope, None)


async def everywhere(call: Call[SearchQuery, None]) -> HitList:
    user = call.caller.user
    scope = search.Scope(
        sees_all=call.caller.is_open,
        user_id=user.id if user else None,
        space_slugs=tuple(user.spaces) if user else (),
        space=call.query.space_id,
    )
    return await _found(call, call.query, scope, _time(call.query.before))


async def _found(
    call: Call[SearchQuery, None] | Call[SessionSearchQuery, None],
    query: SessionSearchQuery,
    scope: search.Scope,
    before: datetime | None,
) -> HitList:
    async with call.connection() as conn:
        hits = await search.search(conn, query.q, scope, limit=query.limit, before=before)
    return HitList(
        hits=[
            HitView(slug=h.slug, title=h.title, headline=h.headline, segment=view(h.stored))
            for h in hits
        ]
    )


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Problem(400, "invalid_parameter", "before: a time in ISO 8601 with a zone")
    return at


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
    ),
)
