"""Records for tests of the store and the journal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from core.ids import Identity, Slug, UtteranceId
from core.transcript import Segment, Word
from core.wire import Insight, Topic
from db.records import InsightRecord, ParticipantRecord, SegmentRecord

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SLUG = Slug("XkAGvchH")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def segment(utterance: str = "u-1", **changes: Any) -> Segment:
    made = Segment(
        slug=SLUG,
        utterance_id=UtteranceId(utterance),
        rev=1,
        is_final=True,
        text="Good morning, everyone",
        identity=Identity("guest-1"),
        name="Maria",
        started_at=at(1),
        ended_at=at(2.5),
        language="en",
        confidence=0.5,
        words=(Word(text="Good", started_at=at(1), ended_at=at(1.2), confidence=0.25),),
        translations={"ru": "Доброе утро всем"},
    )
    return replace(made, **changes)


def record(utterance: str = "u-1", **changes: Any) -> SegmentRecord:
    return SegmentRecord(segment(utterance, **changes))


def presence(**changes: Any) -> ParticipantRecord:
    made = ParticipantRecord(slug=SLUG, identity=Identity("guest-1"), name="Maria", joined_at=at(0))
    return replace(made, **changes)


def insight(rev: int, title: str) -> InsightRecord:
    return InsightRecord(
        slug=SLUG,
        insight=Insight(
            title=title,
            current_topic="Budget",
            topics=(Topic(id="t1", label="Budget", started_at_s=3),),
        ),
        at=at(rev),
        rev=rev,
        model="gpt-4o-mini",
        prompt_tokens=100,
        completion_tokens=20,
    )
