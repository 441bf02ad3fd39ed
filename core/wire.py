"""The JSON messages that rooms, WebSocket viewers and REST clients read.

Schemas for other languages are in docs/schemas; golden messages in tests/cases/wire.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from core.transcript import Segment, Source

VERSION = 1
TRANSCRIPT_TOPIC = "transcript"
INSIGHTS_TOPIC = "insights"
STATUS_TOPIC = "status"
CAPTION_TOPIC = "lk.transcription"
"""LiveKit's own text-stream topic for captions."""
WAKE = b'{"type":"wake"}'
"""On the bus only, under the room's name: something happened there, the steward may look."""
MAX_MESSAGE_BYTES = 14 * 1024
"""LiveKit promises delivery of reliable data packets up to 15 KiB; one KiB is left for headers."""

RoomState = Literal["live", "waiting", "reconnecting", "paused", "off"]
InsightsState = Literal["off", "waiting", "live", "failing", "refused", "budget"]
SpeakerState = Literal["idle", "live", "reconnecting", "queued", "deaf", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One entry of a session's topic history."""

    id: str
    label: str
    started_at_s: int
    """Seconds since the session's first speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """Title, current topic and topic history of a session at one time."""

    title: str
    current_topic: str
    topics: tuple[Topic, ...]
    topic_changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerStatus:
    """How well one participant is heard."""

    identity: str
    state: SpeakerState
    reason: str | None = None
    """Machine-readable cause of a state other than idle or live."""
    lost_s: float = 0.0
    """Seconds of speech known to be lost so far."""


def iso(at: datetime) -> str:
    """UTC with milliseconds and a Z, the only time format on our wires."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def transcript_message(segment: Segment, ts: datetime) -> bytes:
    """The `transcript` message for `segment`, at most MAX_MESSAGE_BYTES long.

    Text that would not fit is cut at its end and marked with an ellipsis; REST has all of it.
    """
    message: dict[str, Any] = {
        "type": "transcript",
        "sessionSlug": segment.slug,
        "utteranceId": segment.utterance_id,
        "text": segment.text,
        "isFinal": segment.is_final,
        "speaker": segment.name,
        "speakerId": segment.identity,
        "ts": iso(ts),
        "rev": segment.rev,
        "startedAt": iso(segment.started_at),
        "endedAt": iso(segment.ended_at),
        "source": segment.source,
        "v": VERSION,
    }
    optional = {
        "userId": segment.user_id,
        "language": segment.language,
        "kind": segment.kind if segment.kind != "speech" else None,
        "reason": segment.reason,
        "translations": segment.translations or None,
    }
    message.update({key: value for key, value in optional.items() if value is not None})
    return _fitted(message)


def insights_message(slug: str, insight: Insight, ts: datetime) -> bytes:
    """The `insights` message: the whole insight, every time.

    Topics that would not fit are left out, the oldest first; REST has all of them.
    """
    topics = [
        {"id": topic.id, "label": topic.label, "startedAtSec": topic.started_at_s}
        for topic in insight.topics
    ]
    message = {
        "type": "insights",
        "sessionSlug": slug,
        "aiTitle": insight.title,
        "currentTopic": insight.current_topic,
        "topics": topics,
        "topicChanged": insight.topic_changed,
        "ts": iso(ts),
        "v": VERSION,
    }
    return _shortened(message, "topics", topics)


def status_message(
    slug: str,
    state: RoomState,
    speakers: tuple[SpeakerStatus, ...],
    ts: datetime,
    insights: InsightsState | None = None,
    source: Source | None = None,
) -> bytes:
    """The `status` message: how well the room and each speaker are heard.

    Args:
        slug: the session.
        state: of the room as a whole.
        speakers: one entry for each participant who was heard; if they are too many for one
            message, those of whom there is least to say are left out.
        ts: when the message was made.
        insights: of the insight engine; left out where the sender does not know it.
        source: what carries the room's audio to the sender.
    """
    entries = []
    for speaker in speakers:
        entry: dict[str, Any] = {"speakerId": speaker.identity, "state": speaker.state}
        if speaker.reason is not None:
            entry["reason"] = speaker.reason
        if speaker.lost_s:
            entry["lostSec"] = round(speaker.lost_s, 1)
        entries.append(entry)
    message: dict[str, Any] = {
        "type": "status",
        "sessionSlug": slug,
        "state": state,
        "speakers": entries,
        "ts": iso(ts),
        "v": VERSION,
    }
    if insights is not None:
        message["insights"] = insights
    if source is not None:
        message["source"] = source
    return _shortened(message, "speakers", sorted(entries, key=len))


def error_message(reason: str, message: str, ts: datetime) -> bytes:
    """The `transcription_error` frame for WebSocket viewers."""
    return _encoded(
        {"type": "transcription_error", "reason": reason, "message": message, "ts": iso(ts)}
    )


def _encoded(message: dict[str, Any]) -> bytes:
    """UTF-8; half a surrogate pair, which it cannot hold, becomes a question mark."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace")


def _shortened(message: dict[str, Any], key: str, items: list[dict[str, Any]]) -> bytes:
    """The message with as many of the last `items` as fit."""
    encoded = _encoded(message)
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded
    room = MAX_MESSAGE_BYTES - len(_encoded(message | {key: []}))
    first = len(items)
    while first > 0 and (room := room - len(_encoded(items[first - 1])) - 1) >= 0:
        first -= 1
    return _encoded(message | {key: items[first:]})


def _fitted(message: dict[str, Any]) -> bytes:
    encoded = _encoded(message)
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded
    message.pop("translations", None)
    encoded = _encoded(message)
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded
    text: str = message["text"]
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encoded(message | {"text": text[:middle] + "…"})) <= MAX_MESSAGE_BYTES:
            low = middle
        else:
            high = middle - 1
    return _encoded(message | {"text": text[:low] + "…"})
