"""Transcript segments as readers see them: in order of `seq` to catch up, of time to read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from core.ids import Slug
from core.transcript import Segment
from db.patterns import containing
from db.pool import Connection
from db.records import words_from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A segment with its place in the session's catch-up order."""

    seq: int
    """New with every version written; a reader of `seq > cursor` skips nothing."""
    segment: Segment


COLUMNS = """
t.utterance_id, t.seq, t.rev, t.is_final, t.kind, t.source, t.identity,
  coalesce(nullif(t.name, ''), p.name, '') as name, t.track_sid, t.text, t.language, t.confidence,
  t.started_at, t.ended_at, t.words, t.translations, t.reason, t.attribution,
  t.attribution_confidence, p.user_id
"""
_WANTED = "unnest($1::uuid[], $2::bigint[]) w(id, after)"
FROM = "from transcript_segments t left join participants p on p.id = t.participant_id"


async def after(
    conn: Connection,
    session_id: UUID,
    slug: Slug,
    *,
    cursor: int,
    limit: int,
    q: str | None = None,
    speaker: str | None = None,
) -> list[StoredSegment]:
    """Segments with `seq > cursor`, lowest first; `q` is plain text found in any case."""
    pattern = None if q is None else containing(q)
    rows = await conn.fetch(
        f"select {COLUMNS} {FROM}"
        " where t.session_id = $1 and t.seq > $2"
        " and ($3::text is null or t.text ilike $3) and ($4::text is null or t.identity = $4)"
        " order by t.seq limit $5",
        session_id,
        cursor,
        pattern,
        speaker,
        limit,
    )
    return [stored(row, slug) for row in rows]


async def spoken(conn: Connection, session_id: UUID, slug: Slug) -> list[StoredSegment]:
    """All segments of the session in the order in which they were spoken."""
    rows = await conn.fetch(
        f"select {COLUMNS} {FROM} where t.session_id = $1 order by t.started_at, t.utterance_id",
        session_id,
    )
    return [stored(row, slug) for row in rows]


def stored(row: asyncpg.Record, slug: Slug) -> StoredSegment:
    segment = Segment(
        slug=slug,
        utterance_id=row["utterance_id"],
        rev=row["rev"],
        is_final=row["is_final"],
        text=row["text"],
        identity=row["identity"],
        name=row["name"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        kind=row["kind"],
        source=row["source"],
        user_id=None if row["user_id"] is None else str(row["user_id"]),
        track_sid=row["track_sid"],
        language=row["language"],
        confidence=row["confidence"],
        words=words_from_json(_decoded(row["words"]) or []),
        translations=_decoded(row["translations"]) or {},
        reason=row["reason"],
        attribution=row["attribution"],
        attribution_confidence=row["attribution_confidence"],
    )
    return StoredSegment(seq=row["seq"], segment=segment)


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


async def news(
    conn: Connection, cursors: Mapping[UUID, int], limit: int
) -> dict[UUID, list[StoredSegment]]:
    """For each session its first `limit` segments after its cursor, lowest first."""
    rows = await conn.fetch(
        f"select s.id as session_id, s.slug, t.* from {_WANTED}"  # noqa: S608 - constants
        f" join sessions s on s.id = w.id, lateral (select {COLUMNS} {FROM}"
        " where t.session_id = w.id and t.seq > w.after order by t.seq limit $3) t"
        " order by s.id, t.seq",
        list(cursors),
        list(cursors.values()),
        limit,
    )
    found: dict[UUID, list[StoredSegment]] = {}
    for row in rows:
        found.setdefault(row["session_id"], []).append(stored(row, Slug(row["slug"])))
    return found


async def living(conn: Connection, session_ids: list[UUID]) -> set[UUID]:
    """Those of the sessions that were not deleted."""
    rows = await conn.fetch(
        "select id from sessions where id = any($1) and deleted_at is null", session_ids
    )
    return {row["id"] for row in rows}
