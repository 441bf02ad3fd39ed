"""The journal: what was said, safe on disk before anybody is shown it.

One SQLite file for each host (write-ahead log), written by every process of the agent, emptied
into PostgreSQL by one of them (`agent.flusher`). A record replaces the older one of the same key,
never a newer one, and takes a new id, so that acknowledging what was read earlier cannot remove it.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.errors import StoreUnavailable
from db.records import Record, key, to_json, version

STALE_S = 30.0
"""Seconds after which an interim that nobody touched is taken for the last word of a dead job."""
_PAGE_BYTES = 4096
_BUSY_MS = 1000
_CHECKPOINT_PAGES = 4000
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA = """
create table if not exists q (
  id integer primary key autoincrement,
  key text not null unique,
  settled integer not null,  -- 0: an interim, still being revised
  rev integer not null,
  body text not null,
  put_at real not null       -- Unix seconds
);
create table if not exists dead (
  id integer primary key, body text not null, error text not null, at real not null
);
"""
_PUT = """
insert into q (key, settled, rev, body, put_at) values (?, ?, ?, ?, ?)
on conflict (key) do update set id = excluded.id, settled = excluded.settled, rev = excluded.rev,
  body = excluded.body, put_at = excluded.put_at
where (excluded.settled, excluded.rev) >= (q.settled, q.rev)
"""
_READY = "(settled or put_at not between ? and ?)"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it lies in the journal."""

    id: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much waits to be moved to PostgreSQL."""

    settled: int
    """Records that will not change."""
    interims: int
    """Utterances that are still being revised."""
    dead: int
    """Records that PostgreSQL refused; kept for a human to look at."""
    oldest_age_s: float
    """Seconds since the oldest settled record was put; 0 when there is none."""
    file_bytes: int


class Journal:
    """One process's connection to the host's journal; for one thread at a time."""

    def __init__(self, path: Path, *, max_bytes: int = 1_000_000_000) -> None:
        """Opens or makes the file. A damaged one is put aside and what it holds is saved.

        Raises:
            StoreUnavailable: the directory cannot be written.
        """
        self.path = path
        self._max_bytes = max_bytes
        self._careful = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreUnavailable(f"no journal at {path}: {exc.strerror}") from exc
        with self._guarded():
            self._open()

    def put(self, record: Record) -> None:
        """Writes one record; it survives the death of this process once this returns.

        It survives a power failure too while the database is away (`set_careful`). An older
        version than the one in the journal is ignored.

        Raises:
            StoreUnavailable: the disk or the journal is full, or cannot be written.
        """
        settled, rev = version(record)
        self._put((key(record), int(settled), rev, to_json(record), _now()))

    def ready(self, limit: int) -> list[Entry]:
        """The oldest records that may be moved: settled ones, and interims gone stale."""
        with self._guarded():
            rows = self._db.execute(
                f"select id, body from q where {_READY} order by id limit ?",  # noqa: S608 - constants
                (*_fresh(), limit),
            )
            return [Entry(*row) for row in rows]
        return []

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Removes what was moved; versions that were put since stay."""
        with self._guarded(), self._db:
            self._db.execute("begin immediate")
            self._db.executemany("delete from q where id = ?", ((entry.id,) for entry in entries))

    def bury(self, entry: Entry, error: str) -> None:
        """Puts a record that PostgreSQL refuses aside, for a human to look at."""
        with self._guarded(), self._db:
            self._db.execute("begin immediate")
            self._db.execute(
                "insert into dead (body, error, at) values (?, ?, ?)", (entry.body, error, _now())
            )
            self._db.execute("delete from q where id = ?", (entry.id,))

    def depth(self) -> Depth:
        """Counts; takes a millisecond for a few thousand records."""
        with self._guarded():
            settled, interims, oldest = self._db.execute(
                "select coalesce(sum(settled), 0), coalesce(sum(not settled), 0),"
                " min(case when settled then put_at end) from q"
            ).fetchone()
            (dead,) = self._db.execute("select count(*) from dead").fetchone()
            return Depth(
                settled=settled,
                interims=interims,
                dead=dead,
                oldest_age_s=0.0 if oldest is None else max(0.0, _now() - oldest),
                file_bytes=sum(p.stat().st_size for p in _files(self.path) if p.exists()),
            )
        raise StoreUnavailable("the journal was damaged; it starts anew")

    def waiting(self) -> tuple[int, float]:
        """Number of records that may be moved, 1000 at most, and seconds the oldest has waited."""
        with self._guarded():
            count, oldest = self._db.execute(
                "select count(*), min(put_at) from"  # noqa: S608 - constants
                f" (select put_at from q where {_READY} order by id limit 1000)",
                _fresh(),
            ).fetchone()
            return count, 0.0 if oldest is None else max(0.0, _now() - oldest)
        return 0, 0.0

    def set_careful(self, careful: bool) -> None:
        """Tells every process of the host whether each put must reach the platter.

        Without it a put survives kill -9 but the last ones may be lost with the host's power;
        with it a put takes 0.4 ms instead of 0.02.
        """
        if careful:
            _flag(self.path).touch()
        else:
            _flag(self.path).unlink(missing_ok=True)

    def checkpoint(self) -> None:
        """Moves the log into the file and gives free space back; writers then need not."""
        with self._guarded():
            self._db.execute("pragma wal_checkpoint(passive)").fetchall()
            self._db.execute("pragma incremental_vacuum(1000)").fetchall()

    def close(self) -> None:
        self._db.close()

    def _put(self, row: tuple[str, int, int, str, float]) -> None:
        for _ in range(3):
            with self._guarded():
                self._match_care()
                self._db.execute(_PUT, row)
                if self._is_current():
                    return
                self._reopen()  # somebody put the file aside meanwhile: write it again
        raise StoreUnavailable("the journal is damaged and could not be replaced")

    def _match_care(self) -> None:
        careful = _flag(self.path).exists()
        if careful != self._careful:
            self._db.execute(f"pragma synchronous = {'full' if careful else 'normal'}")
            self._careful = careful

    def _is_current(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _reopen(self) -> None:
        self._db.close()
        self._open()

    def _open(self) -> None:
        self._db = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000
        )
        self._careful = False
        for pragma in (
            "auto_vacuum = incremental",
            "journal_mode = wal",
            "synchronous = normal",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            f"journal_size_limit = {_CHECKPOINT_PAGES * _PAGE_BYTES}",
            f"max_page_count = {max(self._max_bytes // _PAGE_BYTES, 16)}",
        ):
            self._db.execute(f"pragma {pragma}").fetchall()
        self._db.executescript(_SCHEMA)
        self.path.chmod(0o600)
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Translates SQLite's errors; after damage the block ends early, on a new file."""
        try:
            yield
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
                self._start_anew()
                return
            raise StoreUnavailable(f"the journal cannot be written: {exc}") from exc
        except OSError as exc:
            raise StoreUnavailable(f"the journal cannot be written: {exc.strerror}") from exc

    def _start_anew(self) -> None:
        """Puts the damaged file aside, opens a new one and saves what can still be read."""
        self._db.close()
        aside: Path | None = None
        with _locked(self.path.with_suffix(".lock")):
            if self._is_damaged():
                aside = self.path.with_name(f"{self.path.name}.damaged-{int(_now() * 1000)}")
                for suffix in ("-wal", "-shm", ""):
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
            self._open()
        if aside is not None:
            saved = self._save(aside)
            _log.error("journal was damaged", extra={"aside": str(aside), "saved": saved})

    def _is_damaged(self) -> bool:
        """Whether it still is: another process may have replaced it while we waited."""
        try:
            with contextlib.closing(sqlite3.connect(self.path)) as db:
                db.execute(_SCHEMA.split(";")[0])
                return bool(db.execute("pragma quick_check(1)").fetchone() != ("ok",))
        except sqlite3.DatabaseError:
            return True

    def _save(self, aside: Path) -> int:
        """Copies every readable record from both ends of a damaged file."""
        saved = 0
        for order in ("asc", "desc"):
            with (
                contextlib.suppress(sqlite3.DatabaseError),
                contextlib.closing(sqlite3.connect(aside)) as db,
            ):
                for row in db.execute(
                    f"select key, settled, rev, body, put_at from q order by id {order}"  # noqa: S608 - constants
                ):
                    self._db.execute(_PUT, row)
                    saved += 1
                return saved
        return saved


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _flag(path: Path) -> Path:
    return path.with_suffix(".careful")


def _files(path: Path) -> tuple[Path, ...]:
    return path, Path(f"{path}-wal")


def _fresh() -> tuple[float, float]:
    """Between these times an interim's writer counts as alive; a clock set back does not last."""
    now = _now()
    return now - STALE_S, now + STALE_S


def _now() -> float:
    return datetime.now(UTC).timestamp()
