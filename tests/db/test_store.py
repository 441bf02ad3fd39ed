"""Records become rows on real servers; applying them again, late or mixed up changes nothing."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from core.ids import Identity, Slug
from db.errors import Rejected
from db.pool import Connection
from db.records import (
    Record,
    SegmentRecord,
    SessionEndedRecord,
    SessionRecord,
    from_json,
    key,
    to_json,
)
from db.store import apply
from tests.db.samples import SLUG, at, insight, presence, record, segment

ALL: list[Record] = [
    SessionRecord(slug=SLUG, room_sid="RM_1", started_at=at(0)),
    presence(left_at=at(60), user_id="b4d7f6a0-0000-7000-8000-000000000000"),
    record(),
    record("u-2", is_final=False, identity="", kind="gap", reason="gladia_down", text=""),
    insight(1, "Planning"),
    SessionEndedRecord(slug=SLUG, at=at(70)),
]


@pytest.mark.parametrize("given", ALL, ids=key)
def test_every_record_survives_the_journal(given: Record) -> None:
    assert from_json(to_json(given)) == given


def test_records_of_different_things_have_different_keys() -> None:
    assert len({key(given) for given in ALL}) == len(ALL)


async def text_of(conn: Connection, utterance: str = "u-1") -> tuple[str, bool, int]:
    row = await conn.fetchrow(
        "select text, is_final, rev from transcript_segments where utterance_id = $1", utterance
    )
    assert row is not None
    return row["text"], row["is_final"], row["rev"]


async def test_all_fields_are_stored(conn: Connection) -> None:
    await apply(conn, ALL)
    row = await conn.fetchrow(
        "select t.*, p.identity as speaker, s.slug from transcript_segments t"
        " join sessions s on s.id = t.session_id join participants p on p.id = t.participant_id"
    )
    assert row is not None
    stored = {name: row[name] for name in ("slug", "speaker", "name", "text", "language", "source")}
    assert stored == {
        "slug": SLUG,
        "speaker": "guest-1",
        "name": "Maria",
        "text": "Good morning, everyone",
        "language": "en",
        "source": "agent",
    }
    assert (row["started_at"], row["ended_at"], row["confidence"]) == (at(1), at(2.5), 0.5)
    assert json.loads(row["words"])[0]["text"] == "Good"
    assert json.loads(row["translations"]) == {"ru": "Доброе утро всем"}
    gap = await conn.fetchrow("select * from transcript_segments where kind = 'gap'")
    assert gap is not None
    assert (gap["reason"], gap["participant_id"]) == ("gladia_down", None)
    session = await conn.fetchrow("select * from sessions")
    assert session is not None
    assert (session["status"], session["ended_at"], session["room_sid"]) == (
        "ended",
        at(70),
        "RM_1",
    )
    assert (session["ai_title"], session["ai_rev"], session["origin"]) == ("Planning", 1, "room")


VERSIONS = [
    # what comes first, what comes then, which of them stays
    ({"is_final": False, "rev": 1}, {"is_final": False, "rev": 2}, 1),
    ({"is_final": False, "rev": 2}, {"is_final": True, "rev": 3}, 1),
    ({"is_final": True, "rev": 3}, {"is_final": False, "rev": 4}, 0),  # a late interim
    ({"is_final": True, "rev": 3}, {"is_final": True, "rev": 4}, 1),  # a revised final
    ({"is_final": True, "rev": 3}, {"is_final": True, "rev": 3}, 0),  # a replay
    ({"is_final": True, "rev": 3}, {"is_final": True, "rev": 2}, 0),
]


@pytest.mark.parametrize("together", [False, True], ids=["apart", "in one batch"])
@pytest.mark.parametrize(("first", "second", "winner"), VERSIONS)
async def test_the_right_version_stays(
    conn: Connection,
    first: dict[str, Any],
    second: dict[str, Any],
    winner: int,
    together: bool,
) -> None:
    records = [record(text="first", **first), record(text="second", **second)]
    for batch in [records] if together else [records[:1], records[1:]]:
        await apply(conn, batch)
    assert (await text_of(conn))[0] == ("first", "second")[winner]


async def test_an_equal_replay_writes_no_new_row_version(conn: Connection) -> None:
    await apply(conn, ALL)
    tables = "sessions", "participants", "transcript_segments", "session_insights"
    ctids = "select ctid::text from {} order by 1"
    before = [await conn.fetch(ctids.format(table)) for table in tables]
    await apply(conn, ALL)
    assert [await conn.fetch(ctids.format(table)) for table in tables] == before


async def test_what_postgres_refuses_is_taken_out(conn: Connection) -> None:
    dirty = segment(text="a\0b\ud800c", name="M\0", translations={"ru\0": "ж\0ы\udfff"})
    await apply(conn, [from_json(to_json(SegmentRecord(dirty)))])
    assert (await text_of(conn))[0] == "abc"
    translations = await conn.fetchval("select translations from transcript_segments")
    assert json.loads(translations) == {"ru": "жы"}


async def test_a_record_that_breaks_a_constraint_is_rejected_whole(conn: Connection) -> None:
    secret = "something that somebody said"
    bad = record("u-2", source="telepathy", text=secret)
    with pytest.raises(Rejected) as caught:
        await apply(conn, [record("u-1"), bad])
    assert secret not in str(caught.value)
    assert secret not in str(caught.value.__cause__)
    assert await conn.fetchval("select count(*) from transcript_segments") == 0


async def test_seq_follows_the_order_of_records_and_of_commits(conn: Connection) -> None:
    await apply(conn, [record("u-9"), record("u-1"), record("u-5")])
    await apply(conn, [record("u-1", rev=2), record("u-3")])
    rows = await conn.fetch("select utterance_id from transcript_segments order by seq")
    assert [row[0] for row in rows] == ["u-9", "u-5", "u-1", "u-3"]


async def test_two_flushers_make_one_session_and_skip_nothing(
    conn: Connection, empty_url: str
) -> None:
    """Trap: get-or-create with "do nothing" lost a record, and seq order was not commit order."""

    async def flush(worker: int) -> None:
        own = await asyncpg.connect(empty_url)
        for n in range(15):
            slugs = [Slug(f"room-{(worker + i) % 3}-{n}") for i in range(3)]
            await apply(own, [record(f"{worker}-{n}", slug=slug) for slug in slugs])
        await own.close()

    async with asyncio.TaskGroup() as tasks:
        for worker in range(4):
            tasks.create_task(flush(worker))
    assert await conn.fetchval("select count(*) from sessions") == 45
    assert await conn.fetchval("select count(*) from transcript_segments") == 4 * 15 * 3


async def test_a_reader_of_the_cursor_waits_for_no_hole(conn: Connection, empty_url: str) -> None:
    """While a flush is open, a second one of the same session cannot commit before it."""
    await apply(conn, [record("u-0")])
    slow = await asyncpg.connect(empty_url)
    async with asyncio.TaskGroup() as tasks, slow.transaction():
        await slow.execute("select 1 from sessions for no key update")
        fast = tasks.create_task(apply(conn, [record("u-2")]))
        done, _ = await asyncio.wait([fast], timeout=0.3)
        assert not done
    assert (await text_of(conn, "u-2"))[1]
    await slow.close()


PRESENCES = [
    ([presence(), presence(left_at=at(9))], at(9)),
    ([presence(left_at=at(9)), presence()], at(9)),  # the join comes late
    ([presence(left_at=at(9)), presence(joined_at=at(20))], None),  # back again
    ([presence(joined_at=at(20)), presence(left_at=at(9))], None),  # the first leave comes late
    ([presence(joined_at=at(20), left_at=at(30)), presence(left_at=at(9))], at(30)),
]


@pytest.mark.parametrize("together", [False, True], ids=["apart", "in one batch"])
@pytest.mark.parametrize(("records", "left_at"), PRESENCES)
async def test_presence_is_the_latest_one(
    conn: Connection, records: list[Record], left_at: object, together: bool
) -> None:
    for batch in [records] if together else [records[:1], records[1:]]:
        await apply(conn, batch)
    row = await conn.fetchrow("select * from participants")
    assert row is not None
    assert row["left_at"] == left_at


async def test_a_speaker_gets_a_row_and_later_a_presence(conn: Connection) -> None:
    user = await conn.fetchval("insert into users (display_name) values ('M') returning id")
    await apply(conn, [record(name="", started_at=at(5))])
    await apply(conn, [presence(name="Maria", user_id=str(user), kind="sip", left_at=at(8))])
    row = await conn.fetchrow("select * from participants")
    assert row is not None
    assert (row["name"], row["user_id"], row["kind"]) == ("Maria", user, "sip")
    assert (row["joined_at"], row["left_at"]) == (at(0), at(8))


@pytest.mark.parametrize("user_id", ["not-a-uuid", "b4d7f6a0-0000-7000-8000-000000000000"])
async def test_an_unknown_user_is_no_reference(conn: Connection, user_id: str) -> None:
    await apply(conn, [presence(user_id=user_id), record("u-1", user_id=user_id)])
    assert await conn.fetchval("select user_id from participants") is None


async def test_a_room_nobody_asked_for_opens_again(conn: Connection) -> None:
    def came(seconds: float) -> SessionRecord:
        return SessionRecord(slug=SLUG, room_sid=f"RM_{seconds}", started_at=at(seconds))

    await apply(conn, [came(0), SessionEndedRecord(slug=SLUG, at=at(10))])
    assert await conn.fetchval("select status from sessions") == "ended"
    await apply(conn, [came(0)])  # a replay
    assert await conn.fetchval("select status from sessions") == "ended"
    await apply(conn, [came(20), SessionEndedRecord(slug=SLUG, at=at(10))])
    row = await conn.fetchrow("select * from sessions")
    assert row is not None
    assert (row["status"], row["room_sid"], row["started_at"]) == ("active", "RM_20", at(0))


async def test_a_session_that_was_asked_for_outlives_its_room(conn: Connection) -> None:
    """Who comes back within the grace finds the same session; its end is the service's."""
    await conn.execute("insert into sessions (slug) values ($1)", SLUG)
    came = SessionRecord(slug=SLUG, room_sid="RM_1", started_at=at(0))
    await apply(conn, [came, SessionEndedRecord(slug=SLUG, at=at(10))])
    row = await conn.fetchrow("select status, empty_since from sessions")
    assert row is not None
    assert tuple(row) == ("active", at(10))
    await apply(conn, [SessionRecord(slug=SLUG, room_sid="RM_2", started_at=at(20))])
    assert await conn.fetchval("select empty_since from sessions") is None


async def test_a_session_that_was_ended_by_hand_stays_ended(conn: Connection) -> None:
    await conn.execute(
        "insert into sessions (slug, status, ended_at) values ($1, 'ended', $2)", SLUG, at(0)
    )
    await apply(conn, [SessionRecord(slug=SLUG, room_sid=None, started_at=at(5)), record()])
    assert await conn.fetchval("select status from sessions") == "ended"
    assert (await text_of(conn))[1]


async def test_an_older_insight_never_replaces_a_newer_one(conn: Connection) -> None:
    await apply(conn, [insight(2, "New"), insight(1, "Old")])
    assert await conn.fetchval("select ai_title from sessions") == "New"
    assert await conn.fetchval("select count(*) from session_insights") == 2


async def test_search_stems_by_language(conn: Connection) -> None:
    said = record("u-1", text="Встречи команды ПРОШЛИ", language="ru-RU")
    await apply(conn, [said, SegmentRecord(replace(segment("u-2"), identity=Identity("g2")))])
    found = await conn.fetch(
        "select utterance_id from transcript_segments"
        " where tsv @@ websearch_to_tsquery('russian', 'встреча команда')"
    )
    assert [row[0] for row in found] == ["u-1"]
