"""Opens the database, embedded or by URL, and lends connections that fail fast when it is away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from core.env import Env
from core.errors import ConfigError, StoreError, StoreUnavailable
from db.binaries import OLDEST_MAJOR
from db.embedded import EmbeddedConfig, EmbeddedPostgres
from db.errors import translated
from db.migrate import load, migrate

if TYPE_CHECKING:
    Direct: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Connection: TypeAlias = Direct | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:  # asyncpg's classes take no parameters at run time
    Direct = asyncpg.Connection
    Connection = asyncpg.Connection

EMBEDDED = "embedded:"
_REVIVE_S = 3.0
_IDLE_CONNECTION_S = 60.0
_GOODBYE_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """Which database, and how patient we are with it."""

    url: str = field(repr=False)
    """`postgresql://...`, or `embedded:`, or `embedded:///directory`."""
    application: str
    """Shown in pg_stat_activity, such as `web:4711`."""
    direct_url: str = field(default="", repr=False)
    """A way around pgbouncer, for LISTEN, session locks and migrations; empty: the same URL."""
    pgbouncer: bool = False
    """Whether `url` leads to pgbouncer in transaction mode: no prepared statements then."""
    pool_size: int = 5
    """Connections at most; a warm one costs the server 4 MB. None is kept when idle."""
    connect_timeout_s: float = 3.0
    command_timeout_s: float = 4.0
    embedded: EmbeddedConfig
    """Used only where `url` says embedded."""

    @classmethod
    def from_env(
        cls, env: Env, *, application: str, embedded_by_default: bool, pool_size: int = 5
    ) -> "DatabaseSettings":
        """Reads the variables; problems are collected in `env`."""
        url = env.text("DATABASE_URL")
        if not url and embedded_by_default:
            url = EMBEDDED
        home = data_home(env)
        if not url:
            env.problem(
                "DATABASE_URL is not set: give a postgresql:// URL, or `embedded:` to run "
                f"PostgreSQL from here with its data in {home}"
            )
        elif not url.startswith(("postgresql://", "postgres://", EMBEDDED)):
            env.problem("DATABASE_URL must begin with postgresql:// or embedded:")
        if url.startswith(f"{EMBEDDED}//"):
            home = Path(urlsplit(url).path)
        pg_bin = env.text("ROOMSCRIBE_PG_BIN")
        return cls(
            url=url,
            application=application,
            direct_url=env.text("DATABASE_DIRECT_URL"),
            pgbouncer=env.flag("DB_PGBOUNCER", default=False),
            pool_size=env.integer("DB_POOL_SIZE", pool_size, low=1, high=100),
            embedded=EmbeddedConfig(
                home=home,
                pg_bin=Path(pg_bin) if pg_bin else None,
                account=env.text("ROOMSCRIBE_PG_USER"),
            ),
        )


def data_home(env: Env) -> Path:
    """Where this installation keeps what must survive: the embedded database and the journal.

    ROOMSCRIBE_DATA_DIR, else /var/lib/roomscribe for root, else XDG_DATA_HOME/roomscribe, else
    ~/.local/share/roomscribe.
    """
    if chosen := env.text("ROOMSCRIBE_DATA_DIR"):
        return Path(chosen).absolute()
    home = Path.home()
    if home == Path("/root"):
        return Path("/var/lib/roomscribe")
    return Path(env.text("XDG_DATA_HOME", str(home / ".local" / "share"))) / "roomscribe"


class Database:
    """Connections to one database whose schema is up to date. Made by `open_database`."""

    def __init__(
        self,
        settings: DatabaseSettings,
        url: str,
        server: EmbeddedPostgres | None,
        pool: "asyncpg.Pool[asyncpg.Record]",
    ) -> None:
        self.settings = settings
        self.kind: Literal["embedded", "url"] = "embedded" if server else "url"
        self.where = _shown(url, server)
        """For people: directory or host and database; never a password."""
        self.down_since: datetime | None = None
        """When the database was first found away; None while it answers."""
        self.schema_version = 0
        """0 until the schema was checked for the first time."""
        self._url = url
        self._server = server
        self._pool = pool
        self._preparing = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lends a pooled connection, with the driver's errors translated inside the block.

        Raises:
            StoreUnavailable: the database is away, frozen or has no connection to spare; after
                seven seconds at most, a few milliseconds where it refuses.
        """
        await self.prepare()
        async with self._noticing(), self._acquired() as conn:
            yield conn

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[Direct]:
        """A connection of the caller's own, past any pgbouncer, for LISTEN and session locks."""
        with translated():
            conn = await self._connect()
            try:
                yield conn
            finally:
                await _hang_up(conn)

    async def prepare(self) -> None:
        """Checks the server and migrates, once; called by `connection`.

        Raises:
            ConfigError: the server cannot be used.
            StoreUnavailable: it is away.
        """
        if self.schema_version:
            return
        with translated():
            async with asyncio.timeout(self.settings.connect_timeout_s):
                await self._preparing.acquire()
        try:
            if not self.schema_version:
                async with self._noticing(), self.direct() as conn:
                    await _preflight(conn)
                    self.schema_version = await migrate(conn, load())
        finally:
            self._preparing.release()

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        with translated():
            conn = await self._acquire()
            try:
                yield conn
            except (TimeoutError, asyncio.CancelledError):
                # Its query may still run, or the server be frozen: a reset would wait for it.
                conn.terminate()
                raise
            finally:
                await self._pool.release(conn)

    async def _acquire(self) -> "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]":
        limit_s = self.settings.connect_timeout_s
        try:
            return await self._pool.acquire(timeout=limit_s)
        except (ConnectionError, FileNotFoundError, asyncpg.CannotConnectNowError):
            if self._server is None:
                raise
        await self._revived()
        self.schema_version = 0  # its directory may have been deleted, the cluster be new
        await self.prepare()
        return await self._pool.acquire(timeout=limit_s)

    async def _connect(self) -> Direct:
        try:
            return await self._connect_once()
        except (ConnectionError, FileNotFoundError, asyncpg.CannotConnectNowError):
            if self._server is None:
                raise
        await self._revived()
        return await self._connect_once()

    async def _connect_once(self) -> Direct:
        try:
            return await asyncpg.connect(
                self.settings.direct_url or self._url,
                timeout=self.settings.connect_timeout_s,
                command_timeout=self.settings.command_timeout_s,
                server_settings={"application_name": self.settings.application},
            )
        except ValueError:
            raise _bad_url() from None

    async def _revived(self) -> None:
        """Gets the embedded server started again and gives it a moment to come up."""
        assert self._server is not None
        try:
            await asyncio.to_thread(self._server.ensure, _REVIVE_S)
        except ConfigError as exc:
            raise StoreUnavailable(str(exc)) from exc

    @asynccontextmanager
    async def _noticing(self) -> AsyncIterator[None]:
        """Keeps `down_since`, and says in the log when it changes."""
        try:
            yield
        except StoreUnavailable:
            if self.down_since is None:
                self.down_since = datetime.now(UTC)
                _log.warning("database is away", extra={"database": self.where})
            raise
        if self.down_since is not None:
            away_s = (datetime.now(UTC) - self.down_since).total_seconds()
            self.down_since = None
            _log.info("database is back", extra={"database": self.where, "away_s": away_s})


@asynccontextmanager
async def transaction(conn: Connection) -> AsyncIterator[None]:
    """A transaction that does not try to roll back over a connection that stopped answering."""
    inner = conn.transaction()
    await inner.start()
    try:
        yield
    except (TimeoutError, asyncio.CancelledError):
        conn.terminate()
        raise
    except BaseException:
        await inner.rollback()
        raise
    else:
        await inner.commit()


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Opens the database and brings its schema up to date.

    A database by URL that is away does not stop us: the schema is brought up to date by the first
    `connection` that reaches it. An embedded one is started, which takes a second the first time.

    Raises:
        ConfigError: this database can never be used as configured.
        StoreUnavailable: the embedded server did not come up in time.
    """
    server = None
    url = settings.url
    if url.startswith(EMBEDDED):
        server = EmbeddedPostgres(settings.embedded)
        url = server.url()
    try:
        if server is not None:
            await asyncio.to_thread(server.ensure)
        pool = await _pool(settings, url)
        try:
            database = Database(settings, url, server, pool)
            await _first_contact(database)
            yield database
        finally:
            await _hang_up(pool)
    finally:
        if server is not None:
            await asyncio.to_thread(server.close)


async def _pool(settings: DatabaseSettings, url: str) -> "asyncpg.Pool[asyncpg.Record]":
    try:
        return await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=settings.pool_size,
            max_inactive_connection_lifetime=_IDLE_CONNECTION_S,
            timeout=settings.connect_timeout_s,
            command_timeout=settings.command_timeout_s,
            statement_cache_size=0 if settings.pgbouncer else 100,
            server_settings={"application_name": settings.application},
        )
    except ValueError:
        raise _bad_url() from None


def _bad_url() -> ConfigError:
    """Says nothing of the URL itself: a piece of it may be the password."""
    return ConfigError(
        [
            "DATABASE_URL (or DATABASE_DIRECT_URL) is not a valid PostgreSQL URL; special "
            "characters in the password must be percent-encoded"
        ]
    )


async def _first_contact(database: Database) -> None:
    try:
        await database.prepare()
    except StoreUnavailable:
        return  # logged; it may come later, and captions must not wait for it
    except ConfigError:
        raise
    except StoreError as exc:
        raise ConfigError([f"the database at {database.where} cannot be used: {exc}"]) from exc
    _log.info(
        "database is ready",
        extra={"database": database.where, "schema_version": database.schema_version},
    )


async def _preflight(conn: Direct) -> None:
    row = await conn.fetchrow(
        "select current_setting('server_version_num')::int / 10000 as major,"
        " current_setting('server_version') as version,"
        " current_setting('server_encoding') as encoding,"
        " lower('ВСТРЕЧА') = 'встреча' as lowers"
    )
    assert row is not None
    if row["major"] < OLDEST_MAJOR:
        raise ConfigError([f"PostgreSQL {row['version']} is too old: {OLDEST_MAJOR} is needed"])
    if row["encoding"] != "UTF8":
        raise ConfigError([f"the database's encoding is {row['encoding']}: UTF8 is needed"])
    if not row["lowers"]:
        _log.warning("database has ctype C: search is case-sensitive beyond ASCII")


async def _hang_up(open_one: "Direct | asyncpg.Pool[asyncpg.Record]") -> None:
    try:
        async with asyncio.timeout(_GOODBYE_S):
            await open_one.close()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        open_one.terminate()


def _shown(url: str, server: EmbeddedPostgres | None) -> str:
    if server is not None:
        return f"embedded PostgreSQL {server.binaries.version} in {server.layout.base}"
    parts = urlsplit(url)
    return f"{parts.hostname or 'local socket'}{parts.path}"
