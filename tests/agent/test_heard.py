"""The mark that a bot leaves for the next one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.heard import Heard, HeardMark, latest
from agent.people import Person
from core.ids import Identity

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)


def test_the_next_bot_reads_what_the_last_one_wrote(tmp_path: Path) -> None:
    mark = HeardMark(tmp_path / "heard", "standup/../1")
    assert mark.read() is None
    mark.write(NOON)
    ann = Person(Identity("ann"), "Ann", "user-1", "standard", NOON)
    ben = Person(Identity("ben"), "Ben", None, "sip", LATER)
    mark.write(NOON, [ann])
    mark.write(LATER, [ann, ben])
    assert HeardMark(tmp_path / "heard", "standup/../1").read() == Heard(LATER, (ann, ben))
    [path] = (tmp_path / "heard").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert HeardMark(tmp_path / "heard", "other").read() is None


def test_a_room_that_is_over_leaves_nothing(tmp_path: Path) -> None:
    mark, forgotten = HeardMark(tmp_path, "now"), HeardMark(tmp_path, "long ago")
    forgotten.write(NOON - timedelta(days=300))
    mark.write(datetime.now(UTC))
    mark.forget()
    assert list(tmp_path.iterdir()) == []


def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    mark = HeardMark(tmp_path, "now")
    mark.write(NOON)
    [path] = tmp_path.iterdir()
    for content in ("", "{", "7", '[["ann"]]', '[["ann","Ann",null,"standard","noon"]]'):
        path.write_text(content)
        assert mark.read() is None


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "heard").write_text("a file")
    mark = HeardMark(tmp_path / "heard", "room")
    mark.write(NOON)
    assert mark.read() is None
    mark.forget()


def test_the_later_word_counts() -> None:
    assert latest(None, "") is None
    assert latest(NOON, "") == NOON
    assert latest(None, NOON.isoformat()) == NOON
    assert latest(NOON, LATER.isoformat()) == LATER
