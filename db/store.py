"""Turns records into rows, so that applying one twice, late or out of order changes nothing."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import urandom
from typing import Any
from uuid import UUID

from core.ids import uuid7
from core.transcript import Segment, supersedes
from db.errors import translated
from db.pool import Connection, transaction
from db.records import (
    InsightRecord,
    ParticipantRecord,
    Record,
    SegmentRecord,
    SessionEndedRecord,
    SessionRecord,
    words_to_json,
)

_MAX_NAME = 300


async def apply(conn: Connection, records: Sequence[Record]) -> None:
    """Writes all of them, or none, in one transaction.

    Sessions and participants that are not known yet are made. The rows of the sessions stay locked
    until the commit, so two callers never interleave within a session: `seq` order is the order of
    commits, and within a batch the order of the records.

    Raises:
        StoreUnavailable: try again later.
        Rejected: at least one record can never be written.
        StoreError: a bug of ours or a foreign schema; nothing is wrong with the records.
    """
    with translated():
        async with transaction(conn):
            sessions = await _locked_sessions(conn, {clean(record.slug) for record in records})
            for record in records:
                if isinstance(record, SessionRecord | SessionEndedRecord):
                    await _live(conn, sessions[clean(record.slug)], record)
            segments = _newest(r.segment for r in records if isinstance(r, SegmentRecord))
            present = [r for r in records if isinstance(r, ParticipantRecord)]
            await _write(conn, _PRESENT, _PRESENCE, _presences(present, sessions))
            await _write(conn, _HEARD, _PRESENCE, _heard(segments, sessions))
            rows = [_SegmentRow(sessions[clean(s.slug)], s) for s in segments]
            await _write(conn, _SEGMENTS, _SEGMENT, rows)
            await _insights(conn, [r for r in records if isinstance(r, InsightRecord)], sessions)


def new_id() -> UUID:
    """A UUID v7 of now."""
    return uuid7(int(datetime.now(UTC).timestamp() * 1000), urandom(10))


def clean(text: str) -> str:
    """Without what PostgreSQL refuses in text and jsonb: NUL and lone surrogates."""
    if text.isascii():
        return text.replace("\0", "")
    return text.replace("\0", "").encode(errors="ignore").decode()


async def _locked_sessions(conn: Connection, slugs: set[str]) -> dict[str, UUID]:
    """Id by slug, made where missing; each row locked, in one order for all callers."""
    ordered = sorted(slugs)
    rows = await conn.fetch(
        "select id, slug from sessions where slug = any($1::text[]) order by slug"
        " for no key update",
        ordered,
    )
    ids: dict[str, UUID] = {row["slug"]: row["id"] for row in rows}
    missing = [slug for slug in ordered if slug not in ids]
    if missing:
        # "do nothing" would return no id for a row that another transaction inserts just now; a
        # change of the slug, even to itself, would block foreign keys to the row.
        rows = await conn.fetch(
            "insert into sessions as s (id, slug, origin)"
            " select r.id, r.slug, 'room' from unnest($1::uuid[], $2::text[]) as r (id, slug)"
            " on conflict (slug) do update set room_sid = s.room_sid returning id, slug",
            [new_id() for _ in missing],
            missing,
        )
        ids |= {row["slug"]: row["id"] for row in rows}
    return ids


async def _live(
    conn: Connection, session_id: UUID, record: SessionRecord | SessionEndedRecord
) -> None:
    """A room came or went.

    A session that nobody asked us for ends with its room and opens again with it. One that was
    asked for outlives its room by the grace that the web service gives it.
    """
    if isinstance(record, SessionEndedRecord):
        await conn.execute(
            "update sessions set"
            " status = case origin when 'room' then 'ended' else status end,"
            " ended_at = case origin when 'room' then $2 else ended_at end,"
            " empty_since = case origin when 'room' then null else coalesce(empty_since, $2) end"
            " where id = $1"
            " and status = 'active' and coalesce(room_started_at, '-infinity') <= $2",
            session_id,
            record.at,
        )
        return
    await conn.execute(
        "update sessions set room_sid = coalesce($2, room_sid), room_started_at = $3,"
        " empty_since = null,"
        " started_at = least(started_at, $3) where id = $1"
        " and coalesce(room_started_at, '-infinity') < $3",
        session_id,
        None if record.room_sid is None else clean(record.room_sid),
        record.started_at,
    )
    await conn.execute(
        "update sessions set status = 'active', ended_at = null"
        " where id = $1 and origin = 'room' and ended_at < $2",
        session_id,
        record.started_at,
    )


@dataclass(frozen=True, slots=True)
class _Presence:
    session_id: UUID
    identity: str
    name: str
    kind: str
    user_id: UUID | None
    joined_at: datetime
    left_at: datetime | None


def _presences(records: Sequence[ParticipantRecord], ids: dict[str, UUID]) -> list[_Presence]:
    """The latest presence of each participant; a statement may touch a row only once."""
    latest: dict[tuple[UUID, str], _Presence] = {}
    for record in records:
        row = _Presence(
            ids[clean(record.slug)],
            clean(record.identity),
            clean(record.name)[:_MAX_NAME],
            clean(record.kind),
            _user(record.user_id),
            record.joined_at,
            record.left_at,
        )
        key = (row.session_id, row.identity)
        known = latest.get(key)
        if known is not None and known.joined_at == row.joined_at:
            row = replace(row, left_at=row.left_at or known.left_at)
        if known is None or known.joined_at <= row.joined_at:
            latest[key] = row
    return [latest[key] for key in sorted(latest)]


def _heard(segments: Iterable[Segment], ids: dict[str, UUID]) -> list[_Presence]:
    """Who must have a row because something is about to refer to it."""
    speakers: dict[tuple[UUID, str], _Presence] = {}
    for segment in segments:
        session_id, identity = ids[clean(segment.slug)], clean(segment.identity)
        if identity and (session_id, identity) not in speakers:
            speakers[session_id, identity] = _Presence(
                session_id,
                identity,
                clean(segment.name)[:_MAX_NAME],
                "standard",
                _user(segment.user_id),
                segment.started_at,
                None,
            )
    return [speakers[key] for key in sorted(speakers)]


def _user(value: str | None) -> UUID | None:
    """An id of ours; whatever else a token calls its user is no reference."""
    try:
        return None if value is None else UUID(value)
    except ValueError:
        return None


def _newest(segments: Iterable[Segment]) -> list[Segment]:
    """One version of each utterance, in order of first appearance."""
    newest: dict[tuple[str, str], Segment] = {}
    for segment in segments:
        key = (clean(segment.slug), clean(segment.utterance_id))
        if key not in newest or supersedes(segment, newest[key]):
            newest[key] = segment
    return list(newest.values())


@dataclass(frozen=True, slots=True)
class _SegmentRow:
    session_id: UUID
    segment: Segment


_Columns = tuple[tuple[str, str, Callable[[Any], Any]], ...]
"""Name, type and source of each array that is sent."""

_PRESENCE: _Columns = (
    ("id", "uuid", lambda _: new_id()),
    ("session_id", "uuid", lambda p: p.session_id),
    ("identity", "text", lambda p: p.identity),
    ("name", "text", lambda p: p.name),
    ("kind", "text", lambda p: p.kind),
    ("user_id", "uuid", lambda p: p.user_id),
    ("joined_at", "timestamptz", lambda p: p.joined_at),
    ("left_at", "timestamptz", lambda p: p.left_at),
)


def _maybe(text: str | None) -> str | None:
    return None if text is None else clean(text)


def _json(value: Any) -> str | None:
    """None for an empty list or object."""
    return json.dumps(_cleaned(value), ensure_ascii=False) if value else None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): _cleaned(item) for name, item in value.items()}
    return value


_SEGMENT: _Columns = (
    ("session_id", "uuid", lambda r: r.session_id),
    ("utterance_id", "text", lambda r: clean(r.segment.utterance_id)),
    ("rev", "int", lambda r: r.segment.rev),
    ("is_final", "boolean", lambda r: r.segment.is_final),
    ("kind", "text", lambda r: r.segment.kind),
    ("source", "text", lambda r: r.segment.source),
    ("identity", "text", lambda r: clean(r.segment.identity)),
    ("name", "text", lambda r: clean(r.segment.name)),
    ("track_sid", "text", lambda r: _maybe(r.segment.track_sid)),
    ("text", "text", lambda r: clean(r.segment.text)),
    ("language", "text", lambda r: _maybe(r.segment.language)),
    ("confidence", "real", lambda r: r.segment.confidence),
    ("started_at", "timestamptz", lambda r: r.segment.started_at),
    ("ended_at", "timestamptz", lambda r: max(r.segment.started_at, r.segment.ended_at)),
    ("words", "jsonb", lambda r: _json(words_to_json(r.segment.words))),
    ("translations", "jsonb", lambda r: _json(r.segment.translations)),
    ("reason", "text", lambda r: _maybe(r.segment.reason)),
    ("attribution", "text", lambda r: _maybe(r.segment.attribution)),
    ("attribution_confidence", "real", lambda r: r.segment.attribution_confidence),
)


def _arrays(columns: _Columns) -> str:
    """`unnest` of one array for each column: one statement, whatever the number of rows."""
    values = ", ".join(f"${n}::{kind}[]" for n, (_, kind, _) in enumerate(columns, 1))
    return f"unnest({values}) with ordinality as r ({_names(columns)}, n)"


def _names(columns: _Columns) -> str:
    return ", ".join(name for name, _, _ in columns)


async def _write(conn: Connection, sql: str, columns: _Columns, rows: Sequence[Any]) -> None:
    if rows:
        await conn.execute(sql, *([source(row) for row in rows] for _, _, source in columns))


_NEWER = "excluded.last_joined_at >= coalesce(p.last_joined_at, '-infinity')"
_PRESENT = f"""
insert into participants as p
  (id, session_id, identity, name, kind, user_id, joined_at, last_joined_at, left_at)
select r.id, r.session_id, r.identity, r.name, r.kind, u.id, r.joined_at, r.joined_at, r.left_at
from {_arrays(_PRESENCE)} left join users u on u.id = r.user_id order by r.n
on conflict (session_id, identity) do update set
  joined_at = least(p.joined_at, excluded.joined_at),
  user_id = coalesce(excluded.user_id, p.user_id),
  name = case when {_NEWER} then coalesce(nullif(excluded.name, ''), p.name) else p.name end,
  kind = case when {_NEWER} then excluded.kind else p.kind end,
  last_joined_at = greatest(p.last_joined_at, excluded.last_joined_at),
  left_at = case
    when excluded.last_joined_at = p.last_joined_at then coalesce(excluded.left_at, p.left_at)
    when {_NEWER} then excluded.left_at
    else p.left_at end
where excluded.joined_at < p.joined_at
  or {_NEWER} and (p.name, p.kind, p.last_joined_at, coalesce(excluded.user_id, p.user_id))
    is distinct from (excluded.name, excluded.kind, excluded.last_joined_at, p.user_id)
  or {_NEWER} and excluded.left_at is not null and p.left_at is distinct from excluded.left_at
"""  # noqa: S608 - constants

_HEARD = f"""
insert into participants as p (id, session_id, identity, name, kind, user_id, joined_at)
select r.id, r.session_id, r.identity, r.name, r.kind, u.id, r.joined_at
from {_arrays(_PRESENCE)} left join users u on u.id = r.user_id order by r.n
on conflict (session_id, identity) do update set
  name = coalesce(nullif(p.name, ''), excluded.name),
  user_id = coalesce(p.user_id, excluded.user_id)
where coalesce(p.name, '') = '' and excluded.name <> ''
  or p.user_id is null and excluded.user_id is not null
"""  # noqa: S608 - constants

_KEY = ("session_id", "utterance_id")
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name, _, _ in _SEGMENT if name not in _KEY)
_SEGMENTS = f"""
insert into transcript_segments as t ({_names(_SEGMENT)}, participant_id)
select {", ".join(f"r.{name}" for name, _, _ in _SEGMENT)}, p.id
from {_arrays(_SEGMENT)}
left join participants p on p.session_id = r.session_id and p.identity = r.identity
order by r.n
on conflict (session_id, utterance_id) do update set {_UPDATES}, seq = excluded.seq,
  participant_id = coalesce(excluded.participant_id, t.participant_id), updated_at = now()
where (excluded.is_final, excluded.rev) > (t.is_final, t.rev)
"""  # noqa: S608 - constants


async def _insights(
    conn: Connection, records: Sequence[InsightRecord], sessions: dict[str, UUID]
) -> None:
    for record in records:
        insight, session_id = record.insight, sessions[clean(record.slug)]
        topics = [
            {"id": topic.id, "label": topic.label, "startedAtSec": topic.started_at_s}
            for topic in insight.topics
        ]
        values = (
            session_id,
            record.rev,
            clean(insight.title),
            clean(insight.current_topic),
            _json(topics) or "[]",
            record.at,
        )
        await conn.execute(
            "insert into session_insights (session_id, rev, title, current_topic, topics,"
            " created_at, topic_changed, model, prompt_tokens, completion_tokens)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing",
            *values,
            insight.topic_changed,
            clean(record.model),
            record.prompt_tokens,
            record.completion_tokens,
        )
        await conn.execute(
            "update sessions set ai_rev = $2, ai_title = $3, ai_current_topic = $4,"
            " ai_topics = $5, ai_updated_at = $6 where id = $1 and ai_rev < $2",
            *values,
        )
