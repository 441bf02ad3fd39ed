"""The flusher moves the journal to PostgreSQL exactly once, whatever happens to either."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

from agent.flusher import Flusher
from agent.journal import STALE_S, Journal
from core.errors import StoreUnavailable
from core.ids import Slug
from db import orphans
from db.embedded import is_locked
from db.pool import Database, open_database
from tests.db.probes import settings, until, wait_until
from tests.db.samples import SLUG, presence, record
from tests.frozen import frozen

WRITER = """
import sys, time
from pathlib import Path
from agent.journal import Journal
from tests.db.samples import record

journal, name = Journal(Path(sys.argv[1])), sys.argv[2]
n = 0
while True:
    journal.put(record(f"{name}-{n}", rev=2))
    print(n, flush=True)
    n += 1
    time.sleep(0.01)
"""
FLUSHER = """
import asyncio, sys
from pathlib import Path
from agent.flusher import Flusher
from db.pool import open_database
from tests.db.probes import settings

async def main():
    async with open_database(settings(sys.argv[2], Path(sys.argv[3]))) as database:
        await Flusher(Path(sys.argv[1]), database, batch_s=0.5).run()

asyncio.run(main())
"""


@pytest.fixture
def path(state_dir: Path) -> Path:
    return state_dir / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(settings(database_url)) as database:
        yield database


@pytest.fixture
def home() -> Iterator[Path]:
    """For a server of the test's own, which it may freeze and kill."""
    path = Path(mkdtemp(prefix="roomscribe-test-"))
    path.chmod(0o711)
    yield path
    for cluster in path.glob("pg*"):
        wait_until(lambda: not is_locked(cluster / "supervisor.lock"))  # noqa: B023 - called now
    shutil.rmtree(path)


@asynccontextmanager
async def flushing(path: Path, database: Database, **options: float) -> AsyncIterator[Flusher]:
    flusher = Flusher(path, database, **options)  # type: ignore[arg-type]  # batch_size is an int
    async with asyncio.TaskGroup() as tasks:
        runner = tasks.create_task(flusher.run())
        await until(lambda: flusher.is_elected)
        yield flusher
        runner.cancel()


async def stored(database: Database) -> list[str]:
    async with database.connection() as conn:
        rows = await conn.fetch("select utterance_id from transcript_segments order by seq")
    return [row[0] for row in rows]


async def test_a_full_batch_goes_at_once(path: Path, journal: Journal, database: Database) -> None:
    async with flushing(path, database, batch_s=600, batch_size=10) as flusher:
        for n in range(9):
            journal.put(record(f"u-{n}"))
        journal.put(record("interim", is_final=False))
        await asyncio.sleep(0.5)
        assert flusher.counters.flushed == 0
        journal.put(record("u-9"))
        await until(lambda: journal.depth().settled == 0)
    assert await stored(database) == [f"u-{n}" for n in range(10)]
    assert flusher.counters.batches == 1


async def test_a_lone_final_goes_in_time(path: Path, journal: Journal, database: Database) -> None:
    async with flushing(path, database, batch_s=0.6, batch_size=1000):
        journal.put(record())
        await until(lambda: journal.depth().settled == 0)
    assert await stored(database) == ["u-1"]


async def test_drain_hurries_whoever_is_elected(
    path: Path, journal: Journal, database: Database
) -> None:
    async with flushing(path, database, batch_s=600, batch_size=1000) as elected:
        other = Flusher(path, database)
        journal.put(record())
        journal.put(record("interim", is_final=False))
        assert await other.drain(20)
        assert elected.counters.flushed == 1
        assert await elected.drain(20)  # nothing left to do
    assert await stored(database) == ["u-1"]


async def test_drain_gives_up_in_time(path: Path, journal: Journal, database: Database) -> None:
    journal.put(record())
    assert not await Flusher(path, database).drain(0.2)
    assert journal.depth().settled == 1


async def test_the_next_one_takes_over(path: Path, journal: Journal, database: Database) -> None:
    async with asyncio.TaskGroup() as tasks:
        first, second = (Flusher(path, database, batch_s=0.4) for _ in range(2))
        runner = tasks.create_task(first.run())
        await until(lambda: first.is_elected)
        next_runner = tasks.create_task(second.run())
        journal.put(record("u-1"))
        await until(lambda: first.counters.flushed == 1)
        assert not second.is_elected
        runner.cancel()
        journal.put(record("u-2"))
        await until(lambda: second.counters.flushed == 1)
        next_runner.cancel()
    assert await stored(database) == ["u-1", "u-2"]


async def test_a_dead_jobs_last_interim_is_kept(
    path: Path, journal: Journal, database: Database
) -> None:
    journal.put(record("u-1", is_final=False, rev=4, text="the last words of a"))
    journal._db.execute("update q set put_at = put_at - ?", (STALE_S + 1,))
    async with flushing(path, database):
        await until(lambda: journal.depth().interims == 0)
    async with database.connection() as conn:
        row = await conn.fetchrow("select text, is_final from transcript_segments")
    assert row is not None
    assert tuple(row) == ("the last words of a", False)


async def test_poison_is_put_aside_and_all_else_goes(
    path: Path, journal: Journal, database: Database
) -> None:
    for n in range(40):
        journal.put(record(f"u-{n}"))
    journal.put(record("poison", source="telepathy"))
    journal.put(record("bad-name", slug=Slug("x" * 300)))
    journal._db.execute("insert into q values (null, 'k', 1, 0, 'no record', 0)")
    journal.put(presence())
    async with flushing(path, database) as flusher:
        await until(lambda: journal.depth().settled == 0)
    assert sorted(await stored(database)) == sorted(f"u-{n}" for n in range(40))
    assert (flusher.counters.dead, journal.depth().dead) == (3, 3)


async def test_a_frozen_server_costs_time_and_nothing_else(home: Path, path: Path) -> None:
    journal = Journal(path)
    async with (
        open_database(settings("embedded:", home)) as database,
        flushing(path, database, batch_s=0.3) as flusher,
    ):
        journal.put(record("before"))
        await until(lambda: flusher.counters.flushed == 1)
        server = database._server
        assert server is not None
        with frozen(orphans.processes(server.layout.data)):
            for n in range(30):
                journal.put(record(f"u-{n}"))
            await until(lambda: path.with_suffix(".careful").exists())
            assert flusher.counters.failures > 0
        await until(lambda: journal.depth().settled == 0)
        assert not path.with_suffix(".careful").exists()
        assert sorted(await stored(database)) == sorted(["before", *(f"u-{n}" for n in range(30))])
    journal.close()


async def test_a_session_deleted_under_our_hands_is_made_again(
    path: Path, journal: Journal, database: Database
) -> None:
    async with flushing(path, database, batch_s=0.3):
        for n in range(5):
            journal.put(record(f"u-{n}"))
            await until(lambda: journal.depth().settled == 0)
            async with database.connection() as conn:
                await conn.execute("delete from sessions where slug = $1", SLUG)
    assert await stored(database) == []


def _spawn(script: str, *arguments: object, out: Path | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    if out is None:
        return subprocess.Popen(command)
    with out.open("wb") as file:
        return subprocess.Popen(command, stdout=file)


async def test_chaos_every_acknowledged_final_arrives_once(
    home: Path, path: Path, state_dir: Path
) -> None:
    """Writers, flushers and the whole of PostgreSQL are killed with -9, in a seeded order."""
    chance = random.Random(11)
    writers: dict[str, subprocess.Popen[bytes]] = {}
    flushers: list[subprocess.Popen[bytes]] = []
    out: dict[str, Path] = {}

    def write() -> None:
        name = f"w{len(out)}"
        out[name] = state_dir / name
        writers[name] = _spawn(WRITER, path, name, out=out[name])

    def flush() -> None:
        flushers.append(_spawn(FLUSHER, path, "embedded:", home))

    async with open_database(settings("embedded:", home)) as database:
        server = database._server
        assert server is not None
        for start in (write, write, flush, flush):
            start()
        for what in chance.sample(["writer", "flusher", "postgres"] * 3, 6):
            await asyncio.sleep(0.7)
            if what == "writer":
                _end(writers.pop(chance.choice(list(writers))))
                write()
            elif what == "flusher":
                _end(flushers.pop(0))
                flush()
            else:
                found = orphans.processes(server.layout.data)
                for pid in {*found, *(p for p in found.values() if p not in found)}:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        for writer in writers.values():
            _end(writer)
        assert await Flusher(path, database).drain(30)
        for flusher in flushers:
            _end(flusher)
        kept = await _eventually(database)
    acknowledged = {f"{n}-{i}" for n, f in out.items() for i in f.read_text().splitlines()}
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(acknowledged) > 100


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


async def _eventually(database: Database) -> list[str]:
    async with asyncio.timeout(20):
        while True:
            try:
                return await stored(database)
            except StoreUnavailable:
                await asyncio.sleep(0.05)
