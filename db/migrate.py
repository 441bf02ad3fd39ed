"""Brings the schema up to date: numbered SQL files, applied once, in order, in one transaction."""

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from core.errors import ConfigError

MIGRATIONS = Path(__file__).parent / "migrations"
_KEY = 0x726F6F6D73637269
"""Advisory lock of whoever migrates: 'roomscri' as a number."""
_LOCK_TIMEOUT_S = 120
_TIMEOUT_S = 600.0
_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_BREAKING = "-- breaking"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def is_breaking(self) -> bool:
        """Whether an older program must not run on the schema after it: first line says so."""
        return self.sql.startswith(_BREAKING)


def load(directory: Path = MIGRATIONS) -> list[Migration]:
    """The files of `directory` in order, 1, 2, 3 ...

    Raises:
        ConfigError: a gap, two files of one number, or a name that is not NNNN_name.sql.
    """
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ConfigError([f"migration {path.name} is not named NNNN_name.sql"])
        migrations.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [m.version for m in migrations] != list(range(1, len(migrations) + 1)):
        raise ConfigError(["migrations must be numbered 1, 2, 3 ... without a gap or a double"])
    return migrations


async def migrate(
    conn: "asyncpg.Connection[asyncpg.Record]", migrations: Sequence[Migration]
) -> int:
    """Applies what is missing and returns the schema's version.

    Any number of processes may call it at once: one applies, the others wait and find nothing to
    do. A crash in the middle leaves the schema as it was. The lock belongs to the transaction, so
    it works through pgbouncer and dies with its holder.

    Raises:
        ConfigError: an applied file was edited since, or the schema is newer and breaks us.
    """
    async with conn.transaction():
        await conn.execute(
            f"set local statement_timeout = 0; set local lock_timeout = '{_LOCK_TIMEOUT_S}s'"
        )
        await conn.execute("select pg_advisory_xact_lock($1)", _KEY, timeout=_LOCK_TIMEOUT_S + 5)
        await conn.execute(
            "create table if not exists schema_migrations (version int primary key,"
            " name text not null, sha256 text not null, breaking boolean not null,"
            " applied_at timestamptz not null default now(), took_ms int not null)"
        )
        rows = await conn.fetch("select version, name, sha256, breaking from schema_migrations")
        applied = {row["version"]: row for row in rows}
        _check(applied, migrations)
        for migration in migrations:
            if migration.version not in applied:
                await _apply(conn, migration)
    return max([m.version for m in migrations] + list(applied), default=0)


async def _apply(conn: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    started = time.monotonic()
    await conn.execute(migration.sql, timeout=_TIMEOUT_S)
    took_ms = round((time.monotonic() - started) * 1000)
    await conn.execute(
        "insert into schema_migrations (version, name, sha256, breaking, took_ms)"
        " values ($1, $2, $3, $4, $5)",
        migration.version,
        migration.name,
        migration.sha256,
        migration.is_breaking,
        took_ms,
    )
    _log.info("schema migrated", extra={"version": migration.version, "took_ms": took_ms})


def _check(applied: dict[int, asyncpg.Record], migrations: Sequence[Migration]) -> None:
    known = {migration.version: migration for migration in migrations}
    problems = []
    for version, row in sorted(applied.items()):
        migration = known.get(version)
        if migration is None:
            if row["breaking"]:
                problems.append(
                    f"the schema has migration {version:04}_{row['name']}, which this version of "
                    "the program cannot work with: update the program"
                )
            else:
                _log.warning("schema is newer than the program", extra={"version": version})
        elif migration.sha256 != row["sha256"]:
            problems.append(f"migration {version:04}_{migration.name} was edited after it ran")
    if problems:
        raise ConfigError(problems)
