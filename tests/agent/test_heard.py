"""The mark that a bot leaves for the next one."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.heard import Heard, HeardMark, Marks, latest
from agent.people import Person
from core.ids import Identity

Make = Callable[..., HeardMark]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)


@pytest.fixture
def new_mark() -> Iterator[Make]:
    """Makes marks, and leaves them all at the end."""
    with contextlib.ExitStack() as stack:

        def make(directory: Path, slug: str) -> HeardMark:
            mark = HeardMark(directory, slug)
            stack.callback(mark.leave)
            return mark

        yield make


def test_the_next_bot_reads_what_the_last_one_wrote(tmp_path: Path, new_mark: Make) -> None:
    mark = new_mark(tmp_path / "heard", "standup/../1")
    assert mark.read() is None
    mark.write(NOON)
    ann = Person(Identity("ann"), "Ann", "user-1", "standard", NOON)
    ben = Person(Identity("ben"), "Ben", None, "sip", LATER)
    mark.write(NOON, [ann])
    mark.write(LATER, [ann, ben])
    assert new_mark(tmp_path / "heard", "standup/../1").read() == Heard(LATER, (ann, ben))
    [path] = (tmp_path / "heard").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert new_mark(tmp_path / "heard", "other").read() is None


def test_a_room_that_is_over_leaves_nothing(tmp_path: Path, new_mark: Make) -> None:
    mark, forgotten = new_mark(tmp_path, "now"), new_mark(tmp_path, "long ago")
    mark.write(datetime.now(UTC))
    forgotten.write(NOON - timedelta(days=300))
    marks = Marks(tmp_path)
    marks.forget("now")
    assert len(list(tmp_path.iterdir())) == 2, "their bots live"
    mark.leave()
    marks.forget("other")
    assert len(list(tmp_path.iterdir())) == 2
    forgotten.leave()
    marks.forget("now")
    assert list(tmp_path.iterdir()) == []


def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path, new_mark: Make) -> None:
    mark = new_mark(tmp_path, "now")
    mark.write(NOON)
    [path] = tmp_path.iterdir()
    for content in (
        "",
        "{",
        "7",
        "[]",
        '{"people":7}',
        '{"people":[["ann"]]}',
        '{"people":[["ann","Ann",null,"standard","noon"]]}',
    ):
        path.write_text(content)
        assert mark.read() is None


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path: Path, new_mark: Make) -> None:
    (tmp_path / "heard").write_text("a file")
    mark = new_mark(tmp_path / "heard", "room")
    mark.write(NOON)
    assert mark.read() is None
    Marks(tmp_path / "heard").forget("room")


def test_a_new_bot_takes_the_mark_over_as_it_was(tmp_path: Path, new_mark: Make) -> None:
    ann = Person(Identity("ann"), "Ann", None, "standard", NOON)
    first = new_mark(tmp_path, "room")
    assert first.take("agent-1", NOON) is None
    first.write(NOON, [ann])
    second = new_mark(tmp_path, "room")
    assert second.take("agent-2", LATER) == Heard(NOON, (ann,))
    first.write(LATER, [ann])
    assert second.read() == Heard(NOON, (ann,)), "the first one's file is another one by now"


def test_only_the_bot_of_a_dead_process_is_dead(tmp_path: Path, new_mark: Make) -> None:
    marks = Marks(tmp_path)
    assert marks.dead_bot("room") is None
    mark = new_mark(tmp_path, "room")
    mark.take("agent-1", NOON)
    assert marks.dead_bot("room") is None
    ann = Person(Identity("ann"), "Ann", None, "standard", NOON)
    mark.write(LATER, [ann])
    assert marks.dead_bot("room") is None, "a new file is locked as well"
    mark.leave()
    assert marks.dead_bot("room") == "agent-1"
    assert marks.dead_bot("other") is None
    [path] = tmp_path.iterdir()
    path.write_text("{")
    assert marks.dead_bot("room") is None


def test_the_later_word_counts() -> None:
    assert latest(None, "") is None
    assert latest(NOON, "") == NOON
    assert latest(None, NOON.isoformat()) == NOON
    assert latest(NOON, LATER.isoformat()) == LATER
