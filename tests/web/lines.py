"""Lines as a bot stores them."""

import json
from datetime import UTC, datetime, timedelta

import asyncpg

from core.ids import Identity, Slug, UtteranceId
from core.recap import Recap, recap_json
from core.transcript import Segment
from db import store
from db.records import ParticipantRecord, SegmentRecord, SessionRecord

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


def segment(slug: str, number: int, **values: object) -> Segment:
    at = START + timedelta(seconds=10 * number)
    fields: dict[str, object] = {
        "slug": Slug(slug),
        "utterance_id": UtteranceId(f"u{number}"),
        "rev": 1,
        "is_final": True,
        "text": f"line {number}",
        "identity": Identity("guest-ann"),
        "name": "Ann",
        "started_at": at,
        "ended_at": at + timedelta(seconds=4),
        "language": "en",
    }
    return Segment(**(fields | values))  # type: ignore[arg-type]  # test values


async def stored(database_url: str, slug: str, *segments: Segment) -> None:
    conn = await asyncpg.connect(database_url)
    joined = ParticipantRecord(
        slug=Slug(slug),
        identity=Identity("guest-ann"),
        name="Ann",
        kind="standard",
        user_id=None,
        joined_at=START,
        left_at=None,
    )
    session = SessionRecord(slug=Slug(slug), room_sid="RM_1", started_at=START)
    await store.apply(conn, [session, joined, *map(SegmentRecord, segments)])
    await conn.close()


async def stored_recap(database_url: str, slug: str, recap: Recap) -> None:
    """A recap that was written."""
    conn = await asyncpg.connect(database_url)
    await conn.execute(
        "insert into session_recaps (session_id, state, recap) select id, 'done', $2"
        " from sessions where slug = $1",
        slug,
        json.dumps(recap_json(recap)),
    )
    await conn.close()
