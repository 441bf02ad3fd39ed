"""The journal keeps what was put, whatever is killed, full or damaged."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.journal import STALE_S, Journal
from core.errors import StoreUnavailable
from db.records import Record, SegmentRecord, from_json
from tests.db.samples import insight, presence, record

WRITER = """
import sys
from pathlib import Path
from agent.journal import Journal
from tests.db.samples import record

journal, name = Journal(Path(sys.argv[1])), sys.argv[2]
n = 0
while True:
    journal.put(record(f"{name}-{n}", is_final=False))
    journal.put(record(f"{name}-{n}", rev=2))
    print(n, flush=True)
    n += 1
"""


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    journal = Journal(state_dir / "journal.db")
    yield journal
    journal.close()


def utterances(journal: Journal) -> list[str]:
    return [
        kept.segment.utterance_id
        for entry in journal.ready(100_000)
        if isinstance(kept := from_json(entry.body), SegmentRecord)
    ]


def age(journal: Journal, seconds: float) -> None:
    """Makes what is in the journal older."""
    journal._db.execute("update q set put_at = put_at - ?", (seconds,))


def test_records_come_back_in_order(journal: Journal) -> None:
    given: list[Record] = [record("u-2"), presence(), insight(1, "Title"), record("u-1")]
    for each in given:
        journal.put(each)
    assert [from_json(entry.body) for entry in journal.ready(10)] == given
    assert [from_json(entry.body) for entry in journal.ready(2)] == given[:2]
    depth = journal.depth()
    assert (depth.settled, depth.interims, depth.dead) == (4, 0, 0)
    assert depth.file_bytes > 0


def test_interims_are_replaced_in_place_and_wait(journal: Journal) -> None:
    for rev in range(1, 6):
        journal.put(record("u-1", is_final=False, rev=rev))
    assert journal.depth().interims == 1
    assert journal.ready(10) == []
    journal.put(record("u-1", rev=6))
    assert utterances(journal) == ["u-1"]


# What lies there, what comes, and which revision stays.
VERSIONS = [
    ((False, 1), (False, 2), 2),
    ((False, 5), (True, 2), 2),
    ((True, 2), (False, 3), 2),  # a late interim must not cost us the final
    ((True, 2), (True, 3), 3),
    ((True, 3), (True, 2), 3),
]


@pytest.mark.parametrize(("first", "second", "stays"), VERSIONS)
def test_a_newer_version_is_never_replaced_by_an_older(
    journal: Journal, first: tuple[bool, int], second: tuple[bool, int], stays: int
) -> None:
    for is_final, rev in (first, second):
        journal.put(record(is_final=is_final, rev=rev))
    age(journal, STALE_S + 1)
    (entry,) = journal.ready(10)
    kept = from_json(entry.body)
    assert isinstance(kept, SegmentRecord)
    assert kept.segment.rev == stays


def test_an_interim_whose_writer_died_is_ready_after_a_while(journal: Journal) -> None:
    journal.put(record(is_final=False))
    age(journal, STALE_S - 5)
    assert journal.waiting()[0] == 0
    age(journal, 6)
    assert journal.waiting()[0] == 1
    assert utterances(journal) == ["u-1"]


def test_acknowledging_an_older_version_keeps_the_newer(journal: Journal) -> None:
    journal.put(record("u-1", rev=1))
    journal.put(record("u-2", rev=1))
    read = journal.ready(10)
    journal.put(record("u-1", rev=2))
    journal.acknowledge(read)
    (left,) = journal.ready(10)
    kept = from_json(left.body)
    assert isinstance(kept, SegmentRecord)
    assert kept.segment.rev == 2


def test_ids_are_not_used_again(journal: Journal) -> None:
    """Else an acknowledgement that comes late would remove a stranger."""
    journal.put(record("u-1"))
    read = journal.ready(10)
    journal.acknowledge(read)
    journal.put(record("u-2"))
    journal.acknowledge(read)
    assert utterances(journal) == ["u-2"]


def test_a_refused_record_is_kept_aside(journal: Journal) -> None:
    journal.put(record("u-1"))
    (entry,) = journal.ready(10)
    journal.bury(entry, "23514: breaks a constraint")
    depth = journal.depth()
    assert (depth.settled, depth.dead) == (0, 1)


def test_surrogates_and_nul_are_taken(journal: Journal) -> None:
    odd = record("u-\ud800", text="a\0b\udfff", identity="g\0\ud801")
    journal.put(odd)
    assert from_json(journal.ready(1)[0].body) == odd


def test_kill_9_loses_nothing_that_was_acknowledged(state_dir: Path) -> None:
    path = state_dir / "journal.db"
    acknowledged: set[str] = set()
    for generation in range(3):
        files = [state_dir / f"{generation}-{name}" for name in range(3)]
        writers = []
        for name, file in enumerate(files):
            with file.open("w") as out:
                command = [sys.executable, "-c", WRITER, str(path), f"{generation}.{name}"]
                writers.append(subprocess.Popen(command, stdout=out))
        while min(file.stat().st_size for file in files) < 300:
            assert all(writer.poll() is None for writer in writers)
            os.sched_yield()
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for name, (writer, file) in enumerate(zip(writers, files, strict=True)):
            writer.wait()
            numbers = file.read_text().splitlines()
            acknowledged |= {f"{generation}.{name}-{n}" for n in numbers}
    journal = Journal(path)
    kept = utterances(journal)
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    assert journal._db.execute("pragma integrity_check").fetchone() == ("ok",)
    journal.close()


def test_the_cap_refuses_and_forgets_nothing(state_dir: Path) -> None:
    journal = Journal(state_dir / "journal.db", max_bytes=200_000)
    put: list[int] = []

    def fill() -> None:
        for n in range(10_000):
            journal.put(record(f"u-{n}", text="word " * 100))
            put.append(n)

    with pytest.raises(StoreUnavailable, match="full"):
        fill()
    assert len(utterances(journal)) == len(put) > 50
    journal.acknowledge(journal.ready(len(put) // 2))
    journal.put(record("after"))  # there is room again
    journal.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from agent.journal import Journal
from core.errors import StoreUnavailable
from tests.db.samples import record

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
journal = Journal(Path(sys.argv[1]))
put = 0
try:
    while True:
        journal.put(record(f"u-{put}", text="word " * 100))
        put += 1
except StoreUnavailable:
    print(put)
"""


def test_a_full_disk_refuses_and_forgets_nothing(state_dir: Path) -> None:
    path = state_dir / "journal.db"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    journal = Journal(path)
    assert len(utterances(journal)) == int(result.stdout) > 50
    journal.put(record("after"))
    journal.close()


def tear(path: Path, how: str) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if how == "header":
            file.write(b"\xff" * 200)
        elif how == "middle":
            file.seek(size // 2)
            file.write(os.urandom(4096))
        else:
            file.truncate(size // 2 // 4096 * 4096 + 100)


@pytest.mark.parametrize("how", ["header", "middle", "cut"])
def test_a_damaged_file_is_put_aside_and_saved(
    state_dir: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = state_dir / "journal.db"
    journal = Journal(path)
    for n in range(500):
        journal.put(record(f"u-{n}"))
    journal.checkpoint()
    journal.close()
    tear(path, how)
    again = Journal(path)
    assert len(utterances(again)) < 500 or how == "middle"
    again.put(record("after"))
    assert "after" in utterances(again)
    assert [*state_dir.glob("journal.db.damaged-*")]
    assert "journal was damaged" in caplog.text
    if how == "middle":
        assert len(utterances(again)) > 100
    again.close()


def test_a_torn_log_keeps_what_came_before(state_dir: Path) -> None:
    """The write-ahead log is checksummed: its torn tail is as if it had never been written."""
    path, copy = state_dir / "journal.db", state_dir / "copy.db"
    journal = Journal(path)
    for n in range(100):
        journal.put(record(f"u-{n}"))
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    journal.close()
    log = Path(f"{copy}-wal")
    os.truncate(log, log.stat().st_size - 5000)
    torn = Journal(copy)
    kept = utterances(torn)
    assert kept == [f"u-{n}" for n in range(len(kept))]
    assert 90 < len(kept) < 100
    torn.close()


def test_other_processes_follow_to_the_new_file(state_dir: Path) -> None:
    path = state_dir / "journal.db"
    ours, other = Journal(path), Journal(path)
    ours.put(record("before"))
    path.rename(state_dir / "elsewhere")
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").rename(state_dir / f"elsewhere{suffix}")
    new = Journal(path)
    other.put(record("after"))
    assert utterances(new) == ["after"]
    for journal in (ours, other, new):
        journal.close()


def test_care_is_taken_while_the_database_is_away(state_dir: Path) -> None:
    ours, other = Journal(state_dir / "journal.db"), Journal(state_dir / "journal.db")

    def synchronous() -> int:
        other.put(record())
        return int(other._db.execute("pragma synchronous").fetchone()[0])

    normal, full = 1, 2
    assert synchronous() == normal
    ours.set_careful(True)
    assert synchronous() == full
    ours.set_careful(False)
    assert synchronous() == normal
    ours.close()
    other.close()


def test_a_directory_that_cannot_be_made_is_said(state_dir: Path) -> None:
    (state_dir / "file").touch()
    with pytest.raises(StoreUnavailable, match="no journal at"):
        Journal(state_dir / "file" / "journal.db")


def test_a_locked_file_is_unavailable_not_stuck(state_dir: Path) -> None:
    path = state_dir / "journal.db"
    journal, blocker = Journal(path), sqlite3.connect(path, isolation_level=None)
    blocker.execute("begin immediate")
    with pytest.raises(StoreUnavailable, match="locked"):
        journal.put(record())
    blocker.execute("rollback")
    blocker.close()
    journal.put(record())
    journal.close()
