"""Migrations run once, whole, and only as they were written."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg
import pytest

from core.errors import ConfigError
from db.migrate import Migration, load, migrate

TWO = [
    Migration(1, "init", "create table a (id int);"),
    Migration(2, "more", "create table b (id int); insert into a values (1);"),
]


async def test_eight_starters_migrate_once(empty_url: str) -> None:
    async def start() -> int:
        conn = await asyncpg.connect(empty_url)
        version = await migrate(conn, TWO)
        await conn.close()
        return version

    async with asyncio.TaskGroup() as tasks:
        starters = [tasks.create_task(start()) for _ in range(8)]
    assert {starter.result() for starter in starters} == {2}
    conn = await asyncpg.connect(empty_url)
    assert await conn.fetchval("select count(*) from a") == 1
    assert await conn.fetchval("select count(*) from schema_migrations") == 2
    await conn.close()


async def test_a_starter_killed_in_the_middle_leaves_nothing(empty_url: str) -> None:
    script = (
        "import asyncio, asyncpg, sys\n"
        "from db.migrate import Migration, migrate\n"
        "slow = Migration(1, 'init', 'create table a (id int); select pg_sleep(60);')\n"
        "async def main():\n"
        "    await migrate(await asyncpg.connect(sys.argv[1]), [slow])\n"
        "asyncio.run(main())\n"
    )
    conn = await asyncpg.connect(empty_url)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, empty_url)
    sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%'"
    async with asyncio.timeout(20):
        while not await conn.fetchval(  # noqa: ASYNC110 - the far side has no event
            f"{sleeping} and state = 'active' and pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()"
    )
    assert await migrate(conn, TWO) == 2
    await conn.close()


async def test_an_edited_file_is_refused(empty_url: str) -> None:
    conn = await asyncpg.connect(empty_url)
    await migrate(conn, TWO)
    edited = [TWO[0], Migration(2, "more", TWO[1].sql + " -- edited")]
    with pytest.raises(ConfigError, match="0002_more was edited"):
        await migrate(conn, edited)
    await conn.close()


async def test_a_broken_file_leaves_the_schema_as_it_was(empty_url: str) -> None:
    conn = await asyncpg.connect(empty_url)
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await migrate(conn, [*TWO, Migration(3, "broken", "create tabel c ();")])
    assert await conn.fetchval("select to_regclass('a')") is None
    await conn.close()


@pytest.mark.parametrize("breaking", [False, True])
async def test_an_older_program_on_a_newer_schema(empty_url: str, *, breaking: bool) -> None:
    conn = await asyncpg.connect(empty_url)
    marker = "-- breaking\n" if breaking else ""
    await migrate(conn, [*TWO, Migration(3, "newer", f"{marker}create table c ();")])
    if breaking:
        with pytest.raises(ConfigError, match="0003_newer"):
            await migrate(conn, TWO)
    else:
        assert await migrate(conn, TWO) == 3
    await conn.close()


@pytest.mark.parametrize(
    "names", [["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"], ["1_a.sql"]]
)
def test_gaps_doubles_and_odd_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("select 1")
    with pytest.raises(ConfigError):
        load(tmp_path)


async def test_our_migrations_load(empty_url: str) -> None:
    conn = await asyncpg.connect(empty_url)
    migrations = load()
    assert await migrate(conn, migrations) == len(migrations)
    await conn.close()
