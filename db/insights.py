"""Insights and recaps of sessions: what an earlier job left, and whose turn it is to write."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from core.errors import NotFound
from core.ids import Identity, Slug, UtteranceId
from core.transcript import Segment
from core.wire import Insight, Topic
from db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInsight:
    """A session's insight and the text around it, enough to go on from."""

    insight: Insight | None
    rev: int
    """0 before the first insight."""
    updated_at: datetime | None
    started_at: datetime | None
    """Start of the session's first speech."""
    lines: tuple[Segment, ...]
    """The last finals, oldest first."""
    tokens: int
    """Tokens spent on this session so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecapClaim:
    """One session whose recap this process may write until the claim runs out."""

    session_id: UUID
    slug: Slug
    attempts: int
    """Including this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecap:
    """A session's recap row."""

    state: str
    """pending, done or failed."""
    recap: dict[str, Any] | None
    model: str | None
    updated_at: datetime


async def load(conn: Connection, slug: Slug, *, lines: int = 10) -> StoredInsight:
    """What is stored of a session's insights.

    Raises:
        NotFound: no such session.
    """
    row = await conn.fetchrow(
        """
        select s.id, s.ai_title, s.ai_current_topic, s.ai_topics, s.ai_rev, s.ai_updated_at,
          (select min(t.started_at) from transcript_segments t
           where t.session_id = s.id and t.kind = 'speech') as speech_at,
          (select coalesce(sum(i.prompt_tokens + i.completion_tokens), 0)
           from session_insights i where i.session_id = s.id) as tokens
        from sessions s where s.slug = $1
        """,
        slug,
    )
    if row is None:
        raise NotFound(f"no session {slug}")
    rows = await conn.fetch(
        """
        select utterance_id, rev, identity, name, text, started_at, ended_at
        from transcript_segments
        where session_id = $1 and is_final and kind = 'speech' and text <> ''
        order by started_at desc, seq desc limit $2
        """,
        row["id"],
        lines,
    )
    return StoredInsight(
        insight=_insight(row) if row["ai_rev"] else None,
        rev=row["ai_rev"],
        updated_at=row["ai_updated_at"],
        started_at=row["speech_at"],
        lines=tuple(_segment(slug, line) for line in reversed(rows)),
        tokens=row["tokens"],
    )


async def finals(conn: Connection, session_id: UUID) -> tuple[list[Segment], int]:
    """All finals of a session with their names, oldest first, and the newest `seq` among them."""
    rows = await conn.fetch(
        """
        select t.utterance_id, t.rev, t.identity, t.name, t.text, t.started_at, t.ended_at, t.seq,
          s.slug
        from transcript_segments t join sessions s on s.id = t.session_id
        where t.session_id = $1 and t.is_final and t.kind = 'speech' and t.text <> ''
        order by t.started_at, t.seq
        """,
        session_id,
    )
    segments = [_segment(Slug(row["slug"]), row) for row in rows]
    return segments, max((row["seq"] for row in rows), default=0)


async def claim_recap(
    conn: Connection, *, claim_s: float, max_attempts: int, grace_s: float
) -> RecapClaim | None:
    """Takes one ended session that has speech and no recap; None if there is none.

    Ended for `grace_s` at least, so that the last words are stored.
    """
    row = await conn.fetchrow(
        """
        with next as (
          select s.id from sessions s left join session_recaps r on r.session_id = s.id
          where s.status = 'ended' and s.ended_at < now() - make_interval(secs => $3)
            and (r.session_id is null or (r.state = 'pending' and r.attempts < $2
              and coalesce(r.claimed_until, '-infinity') < now()))
            and exists (select from transcript_segments t
                        where t.session_id = s.id and t.is_final and t.kind = 'speech')
          order by s.ended_at limit 1 for update of s skip locked)
        insert into session_recaps as r (session_id, claimed_until, attempts)
        select id, now() + make_interval(secs => $1), 1 from next
        on conflict (session_id) do update
          set claimed_until = excluded.claimed_until, attempts = r.attempts + 1
          where coalesce(r.claimed_until, '-infinity') < now()
        returning session_id, attempts,
          (select slug from sessions where id = session_id) as slug
        """,
        claim_s,
        max_attempts,
        grace_s,
    )
    if row is None:
        return None
    return RecapClaim(
        session_id=row["session_id"], slug=Slug(row["slug"]), attempts=row["attempts"]
    )


async def claim_recap_of(conn: Connection, slug: Slug, *, claim_s: float) -> RecapClaim | None:
    """Takes one session on demand, ended or not; None while somebody else writes its recap.

    Raises:
        NotFound: no such session.
    """
    session_id = await conn.fetchval("select id from sessions where slug = $1", slug)
    if session_id is None:
        raise NotFound(f"no session {slug}")
    attempts = await conn.fetchval(
        """
        insert into session_recaps as r (session_id, claimed_until, attempts)
        values ($1, now() + make_interval(secs => $2), 1)
        on conflict (session_id) do update
          set claimed_until = excluded.claimed_until, attempts = r.attempts + 1
          where coalesce(r.claimed_until, '-infinity') < now()
        returning attempts
        """,
        session_id,
        claim_s,
    )
    if attempts is None:
        return None
    return RecapClaim(session_id=session_id, slug=slug, attempts=attempts)


async def store_recap(
    conn: Connection,
    claim: RecapClaim,
    *,
    recap: dict[str, Any],
    last_seq: int,
    model: str,
    prompt_tokens: int,
    completion_tokens: int,
) -> None:
    """Stores a finished recap and gives the claim back."""
    await conn.execute(
        """
        update session_recaps set state = 'done', recap = $2, last_seq = $3, model = $4,
          prompt_tokens = prompt_tokens + $5, completion_tokens = completion_tokens + $6,
          claimed_until = null, updated_at = now()
        where session_id = $1
        """,
        claim.session_id,
        json.dumps(recap, ensure_ascii=False),
        last_seq,
        model,
        prompt_tokens,
        completion_tokens,
    )


async def give_up_recap(
    conn: Connection, claim: RecapClaim, *, retry_s: float | None, tokens: tuple[int, int]
) -> None:
    """Gives the claim back after a failure: due again in `retry_s`, or never where None.

    A recap that exists stays.
    """
    await conn.execute(
        """
        update session_recaps set
          claimed_until = now() + make_interval(secs => coalesce($2, 0)),
          state = case when recap is not null then 'done'
                       when $2::float8 is null then 'failed' else state end,
          prompt_tokens = prompt_tokens + $3, completion_tokens = completion_tokens + $4,
          updated_at = now()
        where session_id = $1
        """,
        claim.session_id,
        retry_s,
        *tokens,
    )


async def recap(conn: Connection, slug: Slug) -> StoredRecap | None:
    """The recap row of a session, None before anybody asked for one.

    Raises:
        NotFound: no such session.
    """
    row = await conn.fetchrow(
        """
        select s.id, r.state, r.recap, r.model, r.updated_at
        from sessions s left join session_recaps r on r.session_id = s.id where s.slug = $1
        """,
        slug,
    )
    if row is None:
        raise NotFound(f"no session {slug}")
    if row["state"] is None:
        return None
    return StoredRecap(
        state=row["state"],
        recap=json.loads(row["recap"]) if row["recap"] else None,
        model=row["model"],
        updated_at=row["updated_at"],
    )


def _insight(row: asyncpg.Record) -> Insight:
    return Insight(
        title=row["ai_title"] or "",
        current_topic=row["ai_current_topic"] or "",
        topics=topics_from_json(json.loads(row["ai_topics"])),
    )


def topics_from_json(entries: Sequence[dict[str, Any]]) -> tuple[Topic, ...]:
    """Topics as they stand in `sessions.ai_topics`: `{id, label, startedAtSec}`."""
    return tuple(
        Topic(id=entry["id"], label=entry["label"], started_at_s=entry["startedAtSec"])
        for entry in entries
    )


def _segment(slug: Slug, row: asyncpg.Record) -> Segment:
    return Segment(
        slug=slug,
        utterance_id=UtteranceId(row["utterance_id"]),
        rev=row["rev"],
        is_final=True,
        text=row["text"],
        identity=Identity(row["identity"]),
        name=row["name"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
