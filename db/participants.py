"""Participants: who is or was in a session, one row per LiveKit identity."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from core.errors import NotFound
from core.ids import Identity
from db.pool import Connection

Role = Literal["host", "guest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRow:
    """A participant with the signed-in user behind it, if there is one."""

    id: UUID
    session_id: UUID
    user_id: UUID | None
    identity: Identity
    name: str | None
    role: Role
    kind: str
    joined_at: datetime
    left_at: datetime | None
    display_name: str | None
    avatar_url: str | None
    no_avatar_color: str | None


_ROW = """
select p.id, p.session_id, p.user_id, p.identity, p.name, p.role, p.kind, p.joined_at, p.left_at,
  u.display_name, u.avatar_url, u.no_avatar_color
from participants p left join users u on u.id = p.user_id
where p.session_id = $1
"""


async def find(conn: Connection, session_id: UUID, identity: str) -> ParticipantRow:
    """The participant of that identity.

    Raises:
        NotFound: nobody of that identity was ever there.
    """
    row = await conn.fetchrow(_ROW + " and p.identity = $2", session_id, identity)
    if row is None:
        raise NotFound("no such participant")
    return _participant(row)


async def of_session(conn: Connection, session_id: UUID) -> list[ParticipantRow]:
    """Everybody who was ever there, first come first, bots excluded; at most 1,000."""
    rows = await conn.fetch(
        _ROW + " and p.kind not in ('agent', 'egress') order by p.joined_at, p.identity limit 1000",
        session_id,
    )
    return [_participant(row) for row in rows]


async def joined(
    conn: Connection,
    *,
    participant_id: UUID,
    session_id: UUID,
    identity: str,
    name: str,
    kind: str,
    user_id: UUID | None,
    role: Role,
    at: datetime,
) -> None:
    """Notes a presence that began at `at`; tells the same after a replay or out of order."""
    await conn.execute(
        """
insert into participants as p
  (id, session_id, identity, name, kind, user_id, role, joined_at, last_joined_at)
values ($1, $2, $3, $4, $5, (select id from users where id = $6), $7, $8, $8)
on conflict (session_id, identity) do update set
  name = coalesce(nullif(excluded.name, ''), p.name),
  user_id = coalesce(excluded.user_id, p.user_id),
  role = case when excluded.role = 'host' then 'host' else p.role end,
  joined_at = least(p.joined_at, excluded.joined_at),
  last_joined_at = greatest(p.last_joined_at, excluded.last_joined_at),
  left_at = case when p.left_at <= excluded.last_joined_at then null else p.left_at end
""",
        participant_id,
        session_id,
        identity,
        name[:300],
        kind,
        user_id,
        role,
        at,
    )


async def left(
    conn: Connection, *, session_id: UUID, identity: str, since: datetime, at: datetime
) -> None:
    """Ends at `at` the presence that began at `since`, unless a later one has begun.

    The bot notes the same presence by its own clock, hence two seconds of tolerance.
    """
    await conn.execute(
        "update participants set left_at = greatest(left_at, $4)"
        " where session_id = $1 and identity = $2"
        " and (last_joined_at is null or last_joined_at <= $3::timestamptz + interval '2 seconds')",
        session_id,
        identity,
        since,
        at,
    )


def _participant(row: asyncpg.Record) -> ParticipantRow:
    return ParticipantRow(**dict(row.items()))
