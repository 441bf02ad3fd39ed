"""What is written down: facts with natural keys, so that they can be said while PostgreSQL is away.

A record is put into the journal as JSON and turned into rows by `db.store`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from core.errors import LocalProtocolError
from core.ids import Identity, Slug, TrackSid, UtteranceId
from core.transcript import Segment, Word
from core.wire import Insight, Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A bot came into a room."""

    slug: Slug
    room_sid: str | None
    started_at: datetime
    """UTC time at which the bot came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEndedRecord:
    """A room was closed and its session with it."""

    slug: Slug
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRecord:
    """One presence of one participant; written again when it ends."""

    slug: Slug
    identity: Identity
    name: str
    joined_at: datetime
    """UTC; the same value when the end of this presence is written."""
    left_at: datetime | None = None
    kind: str = "standard"
    """LiveKit's participant kind: standard, sip, ingress ..."""
    user_id: str | None = None
    """Id of the signed-in user; ignored unless it is one of ours."""


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A version of an utterance, interim or final."""

    segment: Segment

    @property
    def slug(self) -> Slug:
        return self.segment.slug


@dataclass(frozen=True, slots=True, kw_only=True)
class InsightRecord:
    """An insight that a model gave."""

    slug: Slug
    insight: Insight
    at: datetime
    rev: int
    """Grows with each insight of the session, from 1."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


Record: TypeAlias = (
    SessionRecord | SessionEndedRecord | ParticipantRecord | SegmentRecord | InsightRecord
)


def key(record: Record) -> str:
    """Names what the record is about: a newer record with the same key replaces an older one."""
    match record:
        case SegmentRecord(segment):
            return _joined("segment", segment.slug, segment.utterance_id)
        case ParticipantRecord():
            return _joined("participant", record.slug, record.identity)
        case InsightRecord():
            return _joined("insight", record.slug, str(record.rev))
        case SessionRecord():
            return _joined("session", record.slug)
        case SessionEndedRecord():
            return _joined("ended", record.slug)


def version(record: Record) -> tuple[bool, int]:
    """Whether it is settled, and its revision: a lower one never replaces a higher one."""
    if isinstance(record, SegmentRecord):
        return record.segment.is_final, record.segment.rev
    return True, 0


def to_json(record: Record) -> str:
    """ASCII, so that lone surrogates and NUL survive until `db.store` removes them."""
    name, _, encode = _CODECS[type(record)]
    return json.dumps({"is": name, **encode(record)}, separators=(",", ":"))


def from_json(text: str) -> Record:
    """The record that `to_json` wrote, also by an older version of this program.

    Raises:
        LocalProtocolError: it is none.
    """
    try:
        value = json.loads(text)
        return _DECODERS[value["is"]](value)
    except (KeyError, TypeError, ValueError) as exc:
        raise LocalProtocolError(f"not a record: {type(exc).__name__}") from None


def _joined(*parts: str) -> str:
    """One text; lone surrogates, which SQLite refuses, are spelled out."""
    return "\x1f".join(part.encode(errors="backslashreplace").decode() for part in parts)


def _at(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _maybe_at(value: str | None) -> datetime | None:
    return None if value is None else _at(value)


def _from_session(record: SessionRecord) -> dict[str, Any]:
    return {
        "slug": record.slug,
        "room_sid": record.room_sid,
        "started_at": record.started_at.isoformat(),
    }


def _to_session(value: dict[str, Any]) -> SessionRecord:
    return SessionRecord(
        slug=Slug(value["slug"]),
        room_sid=value["room_sid"],
        started_at=_at(value["started_at"]),
    )


def _from_ended(record: SessionEndedRecord) -> dict[str, Any]:
    return {"slug": record.slug, "at": record.at.isoformat()}


def _to_ended(value: dict[str, Any]) -> SessionEndedRecord:
    return SessionEndedRecord(slug=Slug(value["slug"]), at=_at(value["at"]))


def _from_participant(record: ParticipantRecord) -> dict[str, Any]:
    return {
        "slug": record.slug,
        "identity": record.identity,
        "name": record.name,
        "joined_at": record.joined_at.isoformat(),
        "left_at": record.left_at and record.left_at.isoformat(),
        "kind": record.kind,
        "user_id": record.user_id,
    }


def _to_participant(value: dict[str, Any]) -> ParticipantRecord:
    return ParticipantRecord(
        slug=Slug(value["slug"]),
        identity=Identity(value["identity"]),
        name=value["name"],
        joined_at=_at(value["joined_at"]),
        left_at=_maybe_at(value["left_at"]),
        kind=value["kind"],
        user_id=value["user_id"],
    )


def _from_insight(record: InsightRecord) -> dict[str, Any]:
    insight = record.insight
    return {
        "slug": record.slug,
        "title": insight.title,
        "current_topic": insight.current_topic,
        "topics": [[topic.id, topic.label, topic.started_at_s] for topic in insight.topics],
        "topic_changed": insight.topic_changed,
        "at": record.at.isoformat(),
        "rev": record.rev,
        "model": record.model,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
    }


def _to_insight(value: dict[str, Any]) -> InsightRecord:
    topics = tuple(
        Topic(id=topic_id, label=label, started_at_s=started_at_s)
        for topic_id, label, started_at_s in value["topics"]
    )
    return InsightRecord(
        slug=Slug(value["slug"]),
        insight=Insight(
            title=value["title"],
            current_topic=value["current_topic"],
            topics=topics,
            topic_changed=value["topic_changed"],
        ),
        at=_at(value["at"]),
        rev=value["rev"],
        model=value["model"],
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value["completion_tokens"],
    )


def words_to_json(words: tuple[Word, ...]) -> list[dict[str, Any]]:
    """The form in the journal and in the column `words`; times in ISO 8601."""
    return [
        {
            "text": word.text,
            "startedAt": word.started_at.isoformat(),
            "endedAt": word.ended_at.isoformat(),
            "confidence": word.confidence,
        }
        for word in words
    ]


def words_from_json(value: list[dict[str, Any]]) -> tuple[Word, ...]:
    """The inverse of `words_to_json`."""
    return tuple(
        Word(
            text=word["text"],
            started_at=_at(word["startedAt"]),
            ended_at=_at(word["endedAt"]),
            confidence=word.get("confidence"),
        )
        for word in value
    )


_PLAIN = (
    "slug",
    "utterance_id",
    "rev",
    "is_final",
    "text",
    "identity",
    "name",
    "kind",
    "source",
    "user_id",
    "track_sid",
    "language",
    "confidence",
    "translations",
    "reason",
    "attribution",
    "attribution_confidence",
)
"""Fields of Segment that are JSON as they are."""


def _from_segment(record: SegmentRecord) -> dict[str, Any]:
    segment = record.segment
    return {name: getattr(segment, name) for name in _PLAIN} | {
        "started_at": segment.started_at.isoformat(),
        "ended_at": segment.ended_at.isoformat(),
        "words": words_to_json(segment.words),
    }


def _to_segment(value: dict[str, Any]) -> SegmentRecord:
    fields = {name: value[name] for name in _PLAIN}
    fields["slug"] = Slug(value["slug"])
    fields["identity"] = Identity(value["identity"])
    fields["utterance_id"] = UtteranceId(value["utterance_id"])
    fields["track_sid"] = None if value["track_sid"] is None else TrackSid(value["track_sid"])
    return SegmentRecord(
        Segment(
            **fields,
            started_at=_at(value["started_at"]),
            ended_at=_at(value["ended_at"]),
            words=words_from_json(value["words"]),
        )
    )


_Decode: TypeAlias = Callable[[dict[str, Any]], Record]
_CODECS: dict[type, tuple[str, _Decode, Callable[[Any], dict[str, Any]]]] = {
    SessionRecord: ("session", _to_session, _from_session),
    SessionEndedRecord: ("ended", _to_ended, _from_ended),
    ParticipantRecord: ("participant", _to_participant, _from_participant),
    SegmentRecord: ("segment", _to_segment, _from_segment),
    InsightRecord: ("insight", _to_insight, _from_insight),
}
_DECODERS: dict[str, _Decode] = {name: decode for name, decode, _ in _CODECS.values()}
