"""Users: people whom an identity provider or a host product vouched for."""

from uuid import UUID

from db.pool import Connection


async def remember(
    conn: Connection,
    user_id: UUID,
    *,
    subject: str | None,
    name: str | None,
    email: str | None,
    picture: str | None,
) -> None:
    """Keeps what the identity provider said last; an address of somebody else is left out."""
    await conn.execute(
        """
insert into users as u (id, subject, email, display_name, avatar_url)
values ($1, $2, (select lower($3) where not exists
  (select from users where email = lower($3) and id <> $1)), coalesce($4, ''), $5)
on conflict (id) do update set
  display_name = coalesce(nullif(excluded.display_name, ''), u.display_name),
  avatar_url = coalesce(excluded.avatar_url, u.avatar_url),
  email = coalesce(excluded.email, u.email)
""",
        user_id,
        subject,
        email,
        (name or "")[:200],
        picture,
    )


async def display_name(conn: Connection, user_id: UUID) -> str:
    """The name under which others see the user; "" if there is none."""
    return await conn.fetchval("select display_name from users where id = $1", user_id) or ""
