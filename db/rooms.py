"""What LiveKit tells about a session's room: open, empty, over."""

from datetime import datetime
from uuid import UUID

from db.pool import Connection


async def first_time(conn: Connection, event_id: str) -> bool:
    """Whether this event was not seen before; notes it. Call it in the event's transaction."""
    return bool(
        await conn.fetchval(
            "insert into received_webhooks (id) values ($1) on conflict do nothing returning true",
            event_id,
        )
    )


async def session_of(conn: Connection, room: str) -> UUID | None:
    """The session of that room, unless nobody knows it or it was deleted."""
    found: UUID | None = await conn.fetchval(
        "select id from sessions where slug = $1 and deleted_at is null", room
    )
    return found


async def opened(conn: Connection, session_id: UUID, room_sid: str, at: datetime) -> None:
    """The room is there; an earlier `closed` that arrives later changes nothing."""
    await conn.execute(
        "update sessions set room_sid = coalesce(nullif($2, ''), room_sid), empty_since = null,"
        " room_event_at = $3 where id = $1 and (room_event_at is null or room_event_at <= $3)",
        session_id,
        room_sid,
        at,
    )


async def closed(conn: Connection, session_id: UUID, at: datetime) -> None:
    """The room is gone; the session ends once the grace is over."""
    await conn.execute(
        "update sessions set empty_since = $2, room_event_at = $2 where id = $1"
        " and status = 'active' and (room_event_at is null or room_event_at <= $2)",
        session_id,
        at,
    )
    await conn.execute(
        "update participants set left_at = greatest($2, last_joined_at)"
        " where session_id = $1 and left_at is null and last_joined_at <= $2",
        session_id,
        at,
    )
