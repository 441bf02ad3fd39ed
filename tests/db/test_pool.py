"""The database opens, fails fast when it is away, and comes back by itself."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import mkdtemp

import asyncpg
import pytest

from core.env import Env
from core.errors import ConfigError, Conflict, StoreError, StoreUnavailable
from db import orphans
from db.binaries import server_account
from db.embedded import is_locked
from db.errors import Rejected, translated
from db.pool import DatabaseSettings, open_database, transaction
from tests.db.probes import Open, settings, wait_until
from tests.frozen import frozen

HOME = {"ROOMSCRIBE_DATA_DIR": "/data"}


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that root's server account can reach; all in it ends with the test."""
    path = Path(mkdtemp(prefix="roomscribe-test-"))
    path.chmod(0o711)
    yield path
    for cluster in path.glob("pg*"):
        wait_until(lambda: not is_locked(cluster / "supervisor.lock"))  # noqa: B023 - called now
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("environ", "url", "home"),
    [
        ({}, "embedded:", "/data"),
        ({"DATABASE_URL": "embedded:"}, "embedded:", "/data"),
        ({"DATABASE_URL": "embedded:///else/where"}, "embedded:///else/where", "/else/where"),
        ({"DATABASE_URL": "postgresql://u:p@h/d"}, "postgresql://u:p@h/d", "/data"),
    ],
)
def test_settings(environ: dict[str, str], url: str, home: str) -> None:
    env = Env(HOME | environ)
    read = DatabaseSettings.from_env(env, application="t", embedded_by_default=True)
    env.check()
    assert (read.url, read.embedded.home) == (url, Path(home))
    assert "p@h" not in repr(read)


@pytest.mark.parametrize("environ", [{}, {"DATABASE_URL": "mysql://h/d"}])
def test_settings_that_cannot_work(environ: dict[str, str]) -> None:
    env = Env(HOME | environ)
    DatabaseSettings.from_env(env, application="t", embedded_by_default=False)
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        env.check()


async def test_an_empty_database_gets_the_schema(empty_url: str, open_url: Open) -> None:
    async with open_url(empty_url) as database, database.connection() as conn:
        assert await conn.fetchval("select count(*) from spaces") == 1
        assert database.schema_version >= 1
        assert database.kind == "url"


async def test_down_at_start_and_back_later(home: Path) -> None:
    """A worker starts, and captions, without its database."""
    async with open_database(settings("embedded:", home)) as embedded:
        url = embedded._url
        async with open_database(settings(url)) as database:
            assert database.schema_version > 0
        missing = settings(url.replace(str(home), "/nonexistent"))
        async with open_database(missing) as database:
            assert database.down_since is not None
            with pytest.raises(StoreUnavailable):
                async with database.connection():
                    pass
            database._url = url
            database._pool.set_connect_args(url)
            async with database.connection() as conn:
                assert await conn.fetchval("select 1") == 1
            assert database.down_since is None


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_frozen_server_fails_fast(home: Path, *, in_transaction: bool) -> None:
    async with open_database(settings("embedded:", home)) as database:
        server = database._server
        assert server is not None
        async with database.connection() as conn:
            await conn.execute("select 1")

        async def ask() -> None:
            async with database.connection() as conn:
                if in_transaction:
                    async with transaction(conn):
                        await conn.execute("select 1")
                await conn.execute("select 1")

        with frozen(orphans.processes(server.layout.data)):
            async with asyncio.timeout(10):  # 0.5 s each for connection and statement
                with pytest.raises(StoreUnavailable):
                    await ask()
        async with asyncio.timeout(10):
            while True:
                try:
                    async with database.connection() as conn:
                        assert await conn.fetchval("select 1") == 1
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)


async def test_an_embedded_server_is_revived_even_without_its_directory(home: Path) -> None:
    async with open_database(settings("embedded:", home)) as database:
        server = database._server
        assert server is not None

        async def works_again() -> None:
            async with asyncio.timeout(20):
                while True:
                    try:
                        async with database.connection() as conn:
                            assert await conn.fetchval("select count(*) from spaces") == 1
                        break
                    except StoreError:
                        await asyncio.sleep(0.05)

        await works_again()
        orphans.kill(server.layout.data)
        await works_again()
        shutil.rmtree(server.layout.base, ignore_errors=True)  # the server deletes files too
        await works_again()


async def test_a_full_pool_is_unavailable_not_stuck(database_url: str) -> None:
    async with open_database(settings(database_url)) as database, AsyncExitStack() as held:
        for _ in range(database.settings.pool_size):
            await held.enter_async_context(database.connection())
        with pytest.raises(StoreUnavailable):
            await held.enter_async_context(database.connection())


async def test_a_cancelled_caller_does_not_wait_for_its_query(database_url: str) -> None:
    async with open_database(settings(database_url)) as database:

        async def sleep() -> None:
            async with asyncio.timeout(0.1), database.connection() as conn:
                await conn.execute("select pg_sleep(30)")

        with pytest.raises(TimeoutError):
            await sleep()
        async with database.connection() as conn:
            assert await conn.fetchval("select 1") == 1


@pytest.mark.parametrize("statement_cache", [False, True])
async def test_behind_pgbouncer_no_statement_is_prepared(
    database_url: str, *, statement_cache: bool
) -> None:
    """In transaction mode it gives each transaction another server session."""
    base = settings(database_url)
    read = DatabaseSettings(
        url=base.url, application="t", embedded=base.embedded, pgbouncer=not statement_cache
    )
    async with open_database(read) as database, database.connection() as conn:
        for _ in range(3):
            await conn.fetchval("select 42")
        prepared = await conn.fetchval("select count(*) from pg_prepared_statements")
        assert (prepared > 0) == statement_cache


@pytest.mark.parametrize("url", ["postgresql://h:notaport/d", "postgresql://u@/d?sslmode=odd"])
async def test_a_broken_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        async with open_database(settings(url)):
            pass


async def test_a_missing_database_is_a_configuration_error(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        async with open_database(settings(postgres_url.replace("/roomscribe?", "/none?"))):
            pass


async def test_an_encoding_other_than_utf8_is_refused(postgres_url: str) -> None:
    admin = await asyncpg.connect(postgres_url)
    name = f"latin_{os.urandom(4).hex()}"
    await admin.execute(
        f"create database {name} encoding 'LATIN1' locale_provider libc locale 'C'"
        " template template0"
    )
    with pytest.raises(ConfigError, match="UTF8"):
        async with open_database(settings(postgres_url.replace("/roomscribe?", f"/{name}?"))):
            pass
    await admin.execute(f"drop database {name}")
    await admin.close()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("select 1/0", Rejected),
        ("insert into spaces (slug, name) values ('default', 'x')", Conflict),
        ("insert into spaces (slug, name) values ('', 'x')", Rejected),
        ("select nothing", StoreError),
        ("select pg_terminate_backend(pg_backend_pid())", StoreUnavailable),
    ],
)
async def test_errors_are_ours(database_url: str, statement: str, error: type[StoreError]) -> None:
    conn = await asyncpg.connect(database_url)
    with pytest.raises(error) as caught, translated():
        await conn.execute(statement)
    assert type(caught.value) is error
    conn.terminate()


def test_the_account_of_existing_data_is_kept(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert server_account(tmp_path, "") is None
        return
    os.chown(tmp_path, 1, 1)
    account = server_account(tmp_path, "nobody")
    assert account is not None
    assert account.uid == 1
