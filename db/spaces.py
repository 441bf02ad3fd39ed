"""Spaces: who works together; a session belongs to one."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import asyncpg

from core.errors import Conflict, NotFound
from db.pool import Connection

Role = Literal["owner", "admin", "member"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRow:
    """A space as one caller sees it."""

    id: UUID
    slug: str
    name: str
    role: Role | None
    """The asking user's role by the database; None where only their token grants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """A member of a space."""

    user_id: UUID
    display_name: str
    avatar_url: str | None
    role: Role


async def of_caller(
    conn: Connection, *, user_id: UUID | None, granted: tuple[str, ...], sees_all: bool
) -> list[SpaceRow]:
    """The caller's spaces, the default one first, then by age. Granted ones are made if new."""
    if granted:
        await conn.execute(
            "insert into spaces (slug, name) select s, s from unnest($1::text[]) s"
            " where length(s) between 1 and 64 on conflict (slug) do nothing",
            list(granted),
        )
    rows = await conn.fetch(
        "select sp.id, sp.slug, sp.name, m.role from spaces sp"
        " left join space_members m on m.space_id = sp.id and m.user_id = $1"
        " where $2 or m.role is not null or sp.slug = any($3::text[])"
        " order by sp.slug <> 'default', sp.created_at, sp.slug limit 500",
        user_id,
        sees_all,
        list(granted),
    )
    return [SpaceRow(**dict(row.items())) for row in rows]


async def create(
    conn: Connection, *, space_id: UUID, slug: str, name: str, owner: UUID | None
) -> None:
    """Makes a space.

    Raises:
        Conflict: the slug is taken.
    """
    try:
        await conn.execute(
            "insert into spaces (id, slug, name) values ($1, $2, $3)", space_id, slug, name
        )
    except asyncpg.UniqueViolationError as exc:
        raise Conflict("the slug is taken") from exc
    if owner is not None:
        await set_member(conn, space_id, owner, "owner")


async def find(conn: Connection, space: str, user_id: UUID | None) -> SpaceRow:
    """The space of that id or slug.

    Raises:
        NotFound: there is none.
    """
    row = await conn.fetchrow(
        "select sp.id, sp.slug, sp.name, m.role from spaces sp"
        " left join space_members m on m.space_id = sp.id and m.user_id = $2"
        " where sp.slug = $1 or sp.id::text = $1",
        space,
        user_id,
    )
    if row is None:
        raise NotFound("no such space")
    return SpaceRow(**dict(row.items()))


async def members(conn: Connection, space_id: UUID) -> list[MemberRow]:
    rows = await conn.fetch(
        "select m.user_id, u.display_name, u.avatar_url, m.role from space_members m"
        " join users u on u.id = m.user_id where m.space_id = $1"
        " order by m.created_at, m.user_id limit 1000",
        space_id,
    )
    return [MemberRow(**dict(row.items())) for row in rows]


async def set_member(conn: Connection, space_id: UUID, user_id: UUID, role: Role) -> None:
    """Adds the user, or changes their role.

    Raises:
        NotFound: nobody of that id ever signed in.
    """
    try:
        await conn.execute(
            "insert into space_members (space_id, user_id, role) values ($1, $2, $3)"
            " on conflict (space_id, user_id) do update set role = excluded.role",
            space_id,
            user_id,
            role,
        )
    except asyncpg.ForeignKeyViolationError as exc:
        raise NotFound("no such user") from exc


async def join_default(conn: Connection, slug: str, user_id: UUID) -> None:
    """Makes the user a member of the space that everybody belongs to, if there is one."""
    await conn.execute(
        "insert into space_members (space_id, user_id) select id, $2 from spaces where slug = $1"
        " on conflict do nothing",
        slug,
        user_id,
    )


async def remove_member(conn: Connection, space_id: UUID, user_id: UUID) -> None:
    await conn.execute(
        "delete from space_members where space_id = $1 and user_id = $2", space_id, user_id
    )
