"""Who transcribes a room: one row for each room, taken by compare-and-set, fenced by an epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from db.pool import Connection, Direct

LeaseKind = Literal["agent", "rtmp", "track"]
_LEADER_KEY = 0x6C65616465725F31
"""Advisory lock of the one steward: 'leader_1' as a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A room's transcriber as the table knows it."""

    room: str
    holder: str
    kind: LeaseKind
    epoch: int
    """Grows with each change of holder; what carries a lower one is from the past."""
    started_at: datetime
    """When the present holder took it."""
    is_live: bool
    """False once it expired."""


async def acquire(
    conn: Connection, room: str, holder: str, ttl_s: float, kind: LeaseKind = "agent"
) -> int | None:
    """Takes or prolongs the room's lease. A bot also takes it from a fallback, at once.

    Returns:
        The epoch, the same as long as the holder stays the same; None when somebody else holds it.
    """
    epoch: int | None = await conn.fetchval(
        "insert into bot_leases as l (room, holder, kind, expires_at)"
        " values ($1, $2, $4, now() + make_interval(secs => $3))"
        " on conflict (room) do update set holder = excluded.holder, kind = excluded.kind,"
        " expires_at = excluded.expires_at, epoch = l.epoch + (l.holder <> excluded.holder)::int,"
        " started_at = case when l.holder = excluded.holder then l.started_at else now() end"
        " where l.holder = excluded.holder or l.expires_at <= now()"
        " or (excluded.kind = 'agent' and l.kind <> 'agent')"
        " returning epoch",
        room,
        holder,
        ttl_s,
        kind,
    )
    return epoch


async def heard_until(conn: Connection, room: str) -> datetime | None:
    """When the room's latest holder was last known to hear it; ask before `acquire`.

    A fallback that hears the room goes on until the bot is in it: it gets a minute more.
    """
    heard: datetime | None = await conn.fetchval(
        "select case when kind <> 'agent' and expires_at > now()"
        " and heard_until > now() - interval '3 seconds'"
        " then now() + interval '1 minute' else heard_until end"
        " from bot_leases where room = $1",
        room,
    )
    return heard


async def renew(
    conn: Connection,
    holders: Mapping[str, str],
    ttl_s: float,
    unheard_s: Mapping[str, float] = MappingProxyType({}),
) -> set[str]:
    """Prolongs many leases, given as room to holder, in one statement.

    Args:
        conn: any connection.
        holders: holder by room.
        ttl_s: seconds from now.
        unheard_s: by room, how many seconds ago it was last heard; of the others nothing new is
            known.

    Returns:
        The rooms that are still ours; whoever is missing was taken over and must stop.
    """
    rows = await conn.fetch(
        "update bot_leases l set expires_at = now() + make_interval(secs => $3),"
        " heard_until = coalesce(now() - make_interval(secs => r.unheard_s), l.heard_until)"
        " from unnest($1::text[], $2::text[], $4::float8[]) as r (room, holder, unheard_s)"
        " where l.room = r.room and l.holder = r.holder returning l.room",
        list(holders),
        list(holders.values()),
        ttl_s,
        [unheard_s.get(room) for room in holders],
    )
    return {row["room"] for row in rows}


async def release(conn: Connection, room: str, holder: str) -> bool:
    """Gives the lease up; False when it was not ours any more. The epoch is remembered."""
    released = await conn.fetchval(
        "update bot_leases set expires_at = now() where room = $1 and holder = $2 returning true",
        room,
        holder,
    )
    return released is not None


async def leases(conn: Connection) -> list[Lease]:
    """Every room's lease, expired ones included."""
    rows = await conn.fetch(
        "select room, holder, kind, epoch, started_at, expires_at > now() as is_live"
        " from bot_leases order by room"
    )
    return [Lease(**dict(row)) for row in rows]


async def forget(conn: Connection, expired_for_s: float) -> int:
    """Deletes leases that expired that long ago; returns how many."""
    status = await conn.execute(
        "delete from bot_leases where expires_at < now() - make_interval(secs => $1)",
        expired_for_s,
    )
    return int(status.split()[-1])


async def lead(conn: Direct) -> bool:
    """Whether we are the one leader from now on, until this connection ends.

    The lock belongs to the server's session, so it needs a connection of one's own
    (`Database.direct`); when that ends, for whatever reason, so does the leadership.
    """
    return bool(await conn.fetchval("select pg_try_advisory_lock($1)", _LEADER_KEY))
