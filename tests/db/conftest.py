"""Databases of each supported kind: the embedded wheel's, and a system's server by URL."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from db.embedded import EmbeddedConfig, EmbeddedPostgres, is_locked
from db.migrate import load, migrate
from db.pool import Connection, Database, open_database
from tests.db.probes import Open, settings, wait_until


@pytest.fixture(scope="session")
def system_programs() -> Path:
    """A PostgreSQL of the system, the oldest there is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.fail("no PostgreSQL server programs: apt-get install postgresql")
    return found[0].parent


@pytest.fixture(scope="session")
def system_postgres(system_programs: Path) -> Iterator[EmbeddedPostgres]:
    with TemporaryDirectory(prefix="roomscribe-test-") as home:
        Path(home).chmod(0o711)
        config = EmbeddedConfig(
            home=Path(home), pg_bin=system_programs, linger_s=0.1, options=("fsync=off",)
        )
        server = EmbeddedPostgres(config)
        server.ensure()
        yield server
        server.close()
        wait_until(lambda: not is_locked(server.layout.supervisor))


@pytest.fixture(params=["embedded", "system"])
def server(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, system_postgres: EmbeddedPostgres
) -> EmbeddedPostgres:
    """Both kinds of server, one after the other."""
    return postgres if request.param == "embedded" else system_postgres


@pytest.fixture
def empty_url(server: EmbeddedPostgres) -> Iterator[str]:
    """A database without a schema, on either kind of server."""
    name = f"test_{os.urandom(6).hex()}"
    _execute(server.url(), f"create database {name}")
    yield server.url(name)
    _execute(server.url(), f"drop database {name} with (force)")


@pytest.fixture
async def conn(empty_url: str) -> AsyncIterator[Connection]:
    """A connection to a fresh migrated database, on either kind of server."""
    connection = await asyncpg.connect(empty_url)
    await migrate(connection, load())
    yield connection
    await connection.close()


@pytest.fixture
def open_url() -> Open:
    """Opens a database by URL, as the services do."""

    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Database]:
        async with open_database(settings(url)) as database:
            yield database

    return opened


def _execute(url: str, statement: str) -> None:
    async def execute() -> None:
        conn = await asyncpg.connect(url)
        await conn.execute(statement)
        await conn.close()

    with asyncio.Runner() as runner:
        runner.run(execute())
