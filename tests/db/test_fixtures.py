"""The database fixtures themselves."""

import asyncpg


async def test_each_test_gets_a_migrated_database(database_url: str) -> None:
    conn = await asyncpg.connect(database_url)
    await conn.execute("create table left_behind (id int)")
    assert await conn.fetchval("select count(*) from sessions") == 0
    await conn.close()


async def test_without_what_the_test_before_left(database_url: str) -> None:
    conn = await asyncpg.connect(database_url)
    assert await conn.fetchval("select to_regclass('left_behind')") is None
    await conn.close()
