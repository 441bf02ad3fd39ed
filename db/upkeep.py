"""What time does to sessions: the end after an empty room, tombstones, retention, announcements."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Connection

_LOCK = 0x726F6F6D75706B70
"""Advisory lock of whoever does the upkeep: 'roomupkp' as a number."""
_BATCH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSession:
    """A session of which others are to be told."""

    id: UUID
    slug: str
    title: str | None
    space_id: UUID | None
    created_at: datetime
    ended_at: datetime


async def is_ours(conn: Connection) -> bool:
    """Whether this transaction does the upkeep; another process has it otherwise."""
    return bool(await conn.fetchval("select pg_try_advisory_xact_lock($1)", _LOCK))


async def end_empty(conn: Connection, grace_s: float) -> int:
    """Ends sessions whose room is gone for longer than the grace; returns how many."""
    ended = await conn.fetch(
        "update sessions set status = 'ended', ended_at = empty_since, empty_since = null"
        " where id in (select id from sessions where status = 'active' and empty_since is not null"
        " and empty_since < now() - make_interval(secs => $1) limit $2 for update skip locked)"
        " returning id",
        grace_s,
        _BATCH,
    )
    await conn.execute(
        "update participants p set left_at = greatest(s.ended_at, p.last_joined_at)"
        " from sessions s where s.id = p.session_id and s.id = any($1) and p.left_at is null",
        [row["id"] for row in ended],
    )
    return len(ended)


async def purge(conn: Connection, tombstone_s: float) -> int:
    """Removes the rows of deleted sessions that no bot can write to any more."""
    gone = await conn.fetch(
        "delete from sessions where id in (select id from sessions where deleted_at is not null"
        " and deleted_at < now() - make_interval(secs => $1) limit $2) returning id",
        tombstone_s,
        _BATCH,
    )
    await conn.execute(
        "delete from transcript_segments where session_id in"
        " (select id from sessions where deleted_at is not null)"
    )
    return len(gone)


async def expire(conn: Connection) -> int:
    """Deletes ended sessions that are older than their space keeps them."""
    gone = await conn.fetch(
        "delete from sessions where id in (select s.id from sessions s join spaces sp on sp.id ="
        " coalesce(s.space_id, (select id from spaces where slug = 'default'))"
        " where sp.retention_days is not null and s.ended_at is not null"
        " and s.ended_at < now() - make_interval(days => sp.retention_days) limit $1)"
        " returning id",
        _BATCH,
    )
    return len(gone)


async def forget_webhooks(conn: Connection) -> None:
    """Drops what is known of webhooks after a week."""
    await conn.execute(
        "delete from received_webhooks where received_at < now() - interval '7 days'"
    )
    await conn.execute(
        "delete from webhook_deliveries where created_at < now() - interval '7 days'"
        " and (delivered_at is not null or gave_up_at is not null)"
    )


async def unannounced(conn: Connection) -> list[EndedSession]:
    """Ended sessions of which nobody was told; noted as told with this transaction."""
    return await _ended(
        conn,
        "update sessions set announced_at = now() where id in (select id from sessions"
        " where status = 'ended' and announced_at is null and deleted_at is null"
        " order by ended_at limit $1 for update skip locked)",
        _BATCH,
    )


async def complete(conn: Connection, quiet_s: float) -> list[EndedSession]:
    """Announced sessions whose transcript is whole; noted as told with this transaction.

    Whole: ended, and not a line was written for `quiet_s` seconds, which is longer than the
    journal's batches take.
    """
    return await _ended(
        conn,
        "update sessions set transcript_ready_at = now() where id in (select s.id from sessions s"
        " where s.announced_at < now() - make_interval(secs => $2)"
        " and s.transcript_ready_at is null and s.status = 'ended' and s.deleted_at is null"
        " and not exists (select 1 from transcript_segments t where t.session_id = s.id"
        " and t.updated_at > now() - make_interval(secs => $2))"
        " order by s.ended_at limit $1 for update of s skip locked)",
        _BATCH,
        quiet_s,
    )


async def _ended(conn: Connection, update: str, *arguments: object) -> list[EndedSession]:
    rows = await conn.fetch(
        update + " returning id, slug, title, space_id, created_at, ended_at", *arguments
    )
    return [EndedSession(**dict(row.items())) for row in rows]
