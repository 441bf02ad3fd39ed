"""The outbox of our own webhooks: at least once to every address, until it says 2xx."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one address."""

    id: UUID
    event_id: UUID
    url: str
    body: str
    attempts: int
    """Including this one."""


async def enqueue(conn: Connection, event_id: UUID, urls: Sequence[str], body: str) -> None:
    """Puts one event into the outbox; again changes nothing."""
    await conn.execute(
        "insert into webhook_deliveries (event_id, url, body) select $1, u, $3"
        " from unnest($2::text[]) u on conflict (event_id, url) do nothing",
        event_id,
        list(urls),
        body,
    )


async def take(conn: Connection, limit: int, lease_s: float) -> list[Delivery]:
    """Due deliveries, ours alone for `lease_s` seconds; after that anybody's."""
    rows = await conn.fetch(
        "update webhook_deliveries set attempts = attempts + 1,"
        " next_at = now() + make_interval(secs => $2)"
        " where id in (select id from webhook_deliveries where delivered_at is null"
        " and gave_up_at is null and next_at <= now() order by next_at limit $1"
        " for update skip locked) returning id, event_id, url, body, attempts",
        limit,
        lease_s,
    )
    return [Delivery(**dict(row.items())) for row in rows]


async def delivered(conn: Connection, delivery_id: UUID) -> None:
    await conn.execute(
        "update webhook_deliveries set delivered_at = now(), last_error = null where id = $1",
        delivery_id,
    )


async def failed(conn: Connection, delivery_id: UUID, error: str, *, retry_s: float | None) -> None:
    """Notes a failure; None gives up for good."""
    await conn.execute(
        "update webhook_deliveries set last_error = left($2, 500),"
        " next_at = now() + make_interval(secs => coalesce($3, 0)),"
        " gave_up_at = case when $3::float8 is null then now() end where id = $1",
        delivery_id,
        error,
        retry_s,
    )
