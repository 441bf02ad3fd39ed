"""The lease table: compare-and-set, expiry, epochs; one leader."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from db import leases
from db.pool import Connection

# Who asks, whether the lease has expired before, and the epoch that they get.
STORY = [
    ("a", False, 1),
    ("a", False, 1),  # prolonged
    ("b", False, None),  # somebody else's
    ("a", True, 1),  # expired, but nobody came: still ours
    ("b", True, 2),  # taken over
    ("a", False, None),
    ("a", True, 3),
]


async def expire(conn: Connection) -> None:
    await conn.execute("update bot_leases set expires_at = now() - interval '1 s'")


async def test_compare_and_set(conn: Connection) -> None:
    for holder, expired, epoch in STORY:
        if expired:
            await expire(conn)
        assert await leases.acquire(conn, "room", holder, 3) == epoch, (holder, expired)


async def test_a_released_lease_is_free_and_keeps_its_epoch(conn: Connection) -> None:
    assert await leases.acquire(conn, "room", "a", 60) == 1
    assert not await leases.release(conn, "room", "b")
    assert await leases.release(conn, "room", "a")
    assert await leases.acquire(conn, "room", "b", 60, "rtmp") == 2
    (lease,) = await leases.leases(conn)
    assert (lease.holder, lease.kind, lease.epoch, lease.is_live) == ("b", "rtmp", 2, True)


async def test_many_are_renewed_at_once_and_lost_ones_reported(conn: Connection) -> None:
    for room in "xyz":
        await leases.acquire(conn, room, f"job-{room}", 60)
    await expire(conn)
    await leases.acquire(conn, "y", "thief", 60)
    ours = {room: f"job-{room}" for room in "xyz"}
    assert await leases.renew(conn, ours, 60) == {"x", "z"}
    assert [lease.is_live for lease in await leases.leases(conn)] == [True, True, True]


async def test_long_expired_leases_are_forgotten(conn: Connection) -> None:
    await leases.acquire(conn, "old", "a", -100)
    await leases.acquire(conn, "new", "a", 60)
    assert await leases.forget(conn, 50) == 1
    assert [lease.room for lease in await leases.leases(conn)] == ["new"]


async def test_one_leader_until_its_connection_ends(
    conn: asyncpg.Connection, empty_url: str
) -> None:
    first = await asyncpg.connect(empty_url)
    assert await leases.lead(first)
    assert not await leases.lead(conn)
    first.terminate()
    for _ in range(100):
        if await leases.lead(conn):
            break
        await conn.execute("select pg_sleep(0.05)")
    else:
        pytest.fail("nobody leads")


async def test_the_next_holder_learns_until_when_the_room_was_heard(conn: Connection) -> None:
    await leases.acquire(conn, "room", "a", 60)
    assert await leases.heard_until(conn, "room") is None
    await leases.renew(conn, {"room": "a"}, 60)
    assert await leases.heard_until(conn, "room") is None, "its bot has not said anything"
    await leases.renew(conn, {"room": "a"}, 60, {"room": 7.0, "elsewhere": 0.0})
    now: datetime = await conn.fetchval("select now()")
    heard = await leases.heard_until(conn, "room")
    assert heard is not None
    assert timedelta(seconds=7) <= now - heard < timedelta(seconds=12)
    await leases.renew(conn, {"room": "a"}, 60)
    await leases.release(conn, "room", "a")
    await leases.acquire(conn, "room", "b", 60)
    assert await leases.heard_until(conn, "room") == heard
    assert await leases.heard_until(conn, "elsewhere") is None
    await leases.release(conn, "room", "b")
    await leases.acquire(conn, "room", "fallback", 60, "rtmp")
    await leases.renew(conn, {"room": "fallback"}, 60, {"room": 0.0})
    still_heard = await leases.heard_until(conn, "room")
    assert still_heard is not None
    assert still_heard > datetime.now(UTC) + timedelta(seconds=30)
