"""Transcripts over HTTP: catching up by cursor, whole turns, files to keep."""

from datetime import datetime
from itertools import groupby
from typing import Annotated, Literal

from pydantic import Field

from core.transcript import Segment
from db import segments
from db.segments import StoredSegment
from web.access import Who
from web.call import Call
from web.route import AnyRoute, Flag, Line, Model, Route, is_yes

_TURN_GAP_S = 30.0


class TranscriptQuery(Model):
    """Which segments to read."""

    after: Annotated[int, Field(ge=0, le=2**62)] = 0
    """Only what is newer than this cursor; 0 reads from the start."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 500
    q: Annotated[Line, Field(min_length=1, max_length=200)] | None = None
    """Only segments that contain this text, in any case."""
    speaker: Annotated[Line, Field(max_length=256)] | None = None
    """Only this identity's."""
    grouped: Flag = "0"
    """Adds `turns`: the page's segments in the order of speech, by speaker."""


class SegmentView(Model):
    """One utterance in its newest version, as in the `transcript` message."""

    seq: int
    utterance_id: str
    text: str
    is_final: bool
    rev: int
    kind: Literal["speech", "gap"]
    speaker: str
    speaker_id: str
    user_id: str | None
    started_at: datetime
    ended_at: datetime
    language: str | None
    confidence: float | None
    source: Literal["agent", "rtmp", "track"]
    translations: dict[str, str]
    reason: str | None
    attribution: str | None
    attribution_confidence: float | None


class TurnView(Model):
    """What one speaker said without another one or a long pause between."""

    speaker: str
    speaker_id: str
    started_at: datetime
    ended_at: datetime
    text: str
    utterance_ids: list[str]


class TranscriptPage(Model):
    """One page of a transcript."""

    segments: list[SegmentView]
    """By `seq`, the order in which they were written; sort by `startedAt` to read."""
    turns: list[TurnView] | None
    next_after: int
    """Give it back as `after` for what comes next."""
    has_more: bool
    status: Literal["ACTIVE", "ENDED"]


async def read(call: Call[TranscriptQuery, None]) -> TranscriptPage:
    query, session = call.query, call.session
    async with call.connection() as conn:
        rows = await segments.after(
            conn,
            session.id,
            session.slug,
            cursor=query.after,
            limit=query.limit + 1,
            q=query.q,
            speaker=query.speaker,
        )
    shown = rows[: query.limit]
    return TranscriptPage(
        segments=[view(row) for row in shown],
        turns=turns([row.segment for row in shown]) if is_yes(query.grouped) else None,
        next_after=shown[-1].seq if shown else query.after,
        has_more=len(rows) > query.limit,
        status="ENDED" if session.status == "ended" else "ACTIVE",
    )


def view(row: StoredSegment) -> SegmentView:
    segment = row.segment
    return SegmentView(
        seq=row.seq,
        utterance_id=segment.utterance_id,
        text=segment.text,
        is_final=segment.is_final,
        rev=segment.rev,
        kind=segment.kind,
        speaker=segment.name,
        speaker_id=segment.identity,
        user_id=segment.user_id,
        started_at=segment.started_at,
        ended_at=segment.ended_at,
        language=segment.language,
        confidence=segment.confidence,
        source=segment.source,
        translations=segment.translations,
        reason=segment.reason,
        attribution=segment.attribution,
        attribution_confidence=segment.attribution_confidence,
    )


def turns(spoken: list[Segment]) -> list[TurnView]:
    """Neighbouring segments of one speaker as one turn; a pause of 30 s starts a new one."""
    ordered = sorted(
        (segment for segment in spoken if segment.kind == "speech" and segment.text),
        key=lambda segment: (segment.started_at, segment.utterance_id),
    )
    found = []
    for _, group in groupby(ordered, key=lambda segment: segment.identity):
        parts = list(group)
        first = 0
        for index in range(1, len(parts) + 1):
            pauses = (
                index < len(parts)
                and (parts[index].started_at - parts[index - 1].ended_at).total_seconds()
                > _TURN_GAP_S
            )
            if index == len(parts) or pauses:
                found.append(_turn(parts[first:index]))
                first = index
    return found


def _turn(parts: list[Segment]) -> TurnView:
    return TurnView(
        speaker=parts[0].name,
        speaker_id=parts[0].identity,
        started_at=parts[0].started_at,
        ended_at=max(part.ended_at for part in parts),
        text=" ".join(part.text for part in parts),
        utterance_ids=[part.utterance_id for part in parts],
    )


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/transcript",
        handler=read,
        who=Who.READER,
        summary="Read the transcript, page by page, or what is new since a cursor",
        tag="transcripts",
        query=TranscriptQuery,
        answer=TranscriptPage,
        has_etag=True,
    ),
)
