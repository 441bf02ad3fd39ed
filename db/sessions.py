"""Sessions: one row per stored meeting, found by its slug, which is its room's name."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

from core.errors import Conflict, NotFound
from core.ids import Slug
from core.wire import Topic
from db.patterns import containing
from db.pool import Connection

Status = Literal["active", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session as one caller sees it."""

    id: UUID
    slug: Slug
    title: str | None
    space_id: UUID
    space_slug: str
    created_by: UUID | None
    status: Status
    created_at: datetime
    started_at: datetime | None
    """When the first bot was in the room."""
    ended_at: datetime | None
    languages: tuple[str, ...]
    ai_title: str | None
    ai_current_topic: str | None
    ai_topics: tuple[Topic, ...]
    ai_updated_at: datetime | None
    people: int
    """Participants who are present now, bots excluded."""
    participants: int
    """Participants who were ever present, bots excluded."""
    member_role: str | None
    """The asking user's role in the space, None for everybody else."""


_ROW = """
select s.id, s.slug, s.title, sp.id as space_id, sp.slug as space_slug, s.created_by, s.status,
  s.created_at, s.started_at, s.ended_at, s.languages, s.ai_title, s.ai_current_topic,
  s.ai_topics, s.ai_updated_at, m.role as member_role, people.now as people,
  people.ever as participants
from sessions s
join spaces sp on sp.id = coalesce(s.space_id, (select id from spaces where slug = 'default'))
left join space_members m on m.space_id = sp.id and m.user_id = $1
left join lateral (
  select count(*) filter (where p.left_at is null and p.last_joined_at is not null) as now,
    count(*) as ever
  from participants p where p.session_id = s.id and p.kind not in ('agent', 'egress')
) people on true
where s.deleted_at is null
"""


async def create(
    conn: Connection,
    *,
    session_id: UUID,
    slug: Slug,
    title: str | None,
    space_id: UUID | None,
    created_by: UUID | None,
    languages: tuple[str, ...] = (),
) -> None:
    """Makes an active session.

    Raises:
        Conflict: the slug is taken; try another.
    """
    try:
        await conn.execute(
            "insert into sessions (id, slug, title, space_id, created_by, languages)"
            " values ($1, $2, $3, $4, $5, $6)",
            session_id,
            slug,
            title,
            space_id,
            created_by,
            list(languages),
        )
    except asyncpg.UniqueViolationError as exc:
        raise Conflict("the slug is taken") from exc


async def find(conn: Connection, slug: str, user_id: UUID | None = None) -> SessionRow:
    """The session of that slug, with the user's role in its space.

    Raises:
        NotFound: there is none, or it was deleted.
    """
    row = await conn.fetchrow(_ROW + " and s.slug = $2", user_id, slug)
    if row is None:
        raise NotFound("no such session")
    return _session(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions a list shows; every field narrows it."""

    sees_all: bool
    """Open mode: every session, whatever its space."""
    user_id: UUID | None
    space_slugs: tuple[str, ...] = ()
    """Spaces that the caller's token grants, beside those of the database."""
    space: str | None = None
    """Only this space, by id or slug."""
    status: Status | None = None
    q: str | None = None
    """Part of the title or of the model's title, in any case."""
    before: tuple[datetime, UUID] | None = None
    """Continue after this row of the page before."""


async def page(conn: Connection, wanted: SessionFilter, limit: int) -> list[SessionRow]:
    """At most `limit` sessions, newest first."""
    pattern = None if wanted.q is None else containing(wanted.q)
    before_at, before_id = wanted.before or (None, None)
    rows = await conn.fetch(
        _ROW
        + """
  and ($2 or m.role is not null or sp.slug = any($3::text[]) or s.created_by = $1)
  and ($4::text is null or sp.slug = $4 or sp.id::text = $4)
  and ($5::text is null or s.status = $5)
  and ($6::text is null or s.title ilike $6 or s.ai_title ilike $6)
  and ($7::timestamptz is null or (s.created_at, s.id) < ($7, $8::uuid))
order by s.created_at desc, s.id desc limit $9
""",
        wanted.user_id,
        wanted.sees_all,
        list(wanted.space_slugs),
        wanted.space,
        wanted.status,
        pattern,
        before_at,
        before_id,
        limit,
    )
    return [_session(row) for row in rows]


async def languages_of(conn: Connection, slug: str) -> tuple[str, ...]:
    """The session's languages; none where nobody chose any, or nobody knows the session."""
    found = await conn.fetchval("select languages from sessions where slug = $1", slug)
    return tuple(found or ())


async def update(
    conn: Connection, session_id: UUID, *, title: str | None, languages: tuple[str, ...] | None
) -> None:
    """Changes what is given; None leaves a field as it is."""
    await conn.execute(
        "update sessions set title = coalesce($2, title), languages = coalesce($3, languages)"
        " where id = $1",
        session_id,
        title,
        None if languages is None else list(languages),
    )


async def end(conn: Connection, session_id: UUID, at: datetime) -> bool:
    """Ends the session and everybody's presence; False where it had ended before."""
    ended = await conn.fetchval(
        "update sessions set status = 'ended', ended_at = $2, empty_since = null"
        " where id = $1 and status = 'active' returning true",
        session_id,
        at,
    )
    if ended:
        await conn.execute(
            "update participants set left_at = greatest($2, coalesce(last_joined_at, $2))"
            " where session_id = $1 and left_at is null",
            session_id,
            at,
        )
    return bool(ended)


async def hide(conn: Connection, session_id: UUID, at: datetime) -> None:
    """Deletes the session for every reader.

    Its content goes now. The row stays for a while as a tombstone (see `db.upkeep`), so that the
    last records of a bot, which name it by slug, do not bring the session back.
    """
    await conn.execute(
        "update sessions set deleted_at = $2, status = 'ended', ended_at = coalesce(ended_at, $2),"
        " title = null, ai_title = null, ai_current_topic = null, ai_topics = '[]'"
        " where id = $1 and deleted_at is null",
        session_id,
        at,
    )
    for table in ("transcript_segments", "session_insights", "participants"):
        await conn.execute(
            f"delete from {table} where session_id = $1",  # noqa: S608 - names from the line above
            session_id,
        )


def _session(row: asyncpg.Record) -> SessionRow:
    return SessionRow(
        **{
            name: row[name]
            for name in row.keys()  # noqa: SIM118 - iterating a Record gives values
            if name not in {"languages", "ai_topics"}
        },
        languages=tuple(row["languages"]),
        ai_topics=topics_from(row["ai_topics"]),
    )


def topics_from(value: str | list[dict[str, Any]]) -> tuple[Topic, ...]:
    """Topics as stored in `ai_topics`, whether or not the driver decoded the JSON."""
    entries = json.loads(value) if isinstance(value, str) else value
    return tuple(
        Topic(
            id=entry["id"], label=entry["label"], started_at_s=int(entry.get("startedAtSec") or 0)
        )
        for entry in entries
    )
