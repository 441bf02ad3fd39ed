"""What Gladia says, decoded. Nonsense of any kind becomes a `PeerFault`, never an exception.

Shapes follow the OpenAPI (2026-08-23) where other first-party sources contradict it, and accept
both where both are harmless: a `byte_range` end may be inclusive or exclusive, since half a sample
is rounded up.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from core.audio import SAMPLE_BYTES
from core.gladia.events import PeerFault

STOP_RECORDING = '{"type":"stop_recording"}'
KEEP_ALIVE = '{"type":"audio_chunk","data":{"chunk":""}}'
"""An empty chunk, which pipecat uses in production against the 30 s idle drop."""

_MAX_TIME_S = 86_400.0
_DETAIL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class AudioAck:
    """An acknowledgement of audio. `start` and `end` are server samples, None if not given."""

    accepted: bool
    start: int | None = None
    end: int | None = None
    start_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class SpeechEdge:
    """Gladia heard speech begin or end at this time of its audio."""

    is_start: bool
    time_s: float


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word, times in seconds of received audio."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class HeardUtterance:
    """An utterance, times in seconds of received audio, text stripped."""

    text: str
    start_s: float
    end_s: float
    language: str | None
    confidence: float | None
    words: tuple[HeardWord, ...]
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """A version of an utterance; (channel, id) names it within one session."""

    id: str
    is_final: bool
    utterance: HeardUtterance

    @property
    def key(self) -> tuple[int, str]:
        return self.utterance.channel, self.id


@dataclass(frozen=True, slots=True)
class Translation:
    """A translation of a final; joined by utterance id."""

    key: tuple[int, str]
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that brings nothing: lifecycle, stop acknowledgement, post-processing."""

    type: str

    @property
    def is_about_the_end(self) -> bool:
        """The server heard stop_recording, and knows that no more audio comes."""
        return self.type in {"stop_recording", "end_recording", "end_session"}


ServerMessage: TypeAlias = AudioAck | SpeechEdge | Transcript | Translation | Notice | PeerFault


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The 201 of POST /v2/live."""

    session_id: str
    url: str


@dataclass(frozen=True, slots=True)
class SessionResult:
    """GET /v2/live/{id}: utterances once it is done."""

    is_done: bool
    utterances: tuple[HeardUtterance, ...] = ()


class _MalformedError(Exception):
    """A field is missing or has the wrong type; the message names it."""


def decode(text: str) -> ServerMessage:
    """The message in `text`. Never raises."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return PeerFault("malformed_json", f"{len(text)} characters")
    if not isinstance(message, dict):
        return PeerFault("malformed_message", "not an object")
    kind = message.get("type")
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        return PeerFault("unknown_message", str(kind)[:_DETAIL_CHARACTERS])
    try:
        return decoder(message)
    except _MalformedError as error:
        return PeerFault("malformed_message", f"{kind}: {error}"[:_DETAIL_CHARACTERS])


def decode_created(text: str) -> SessionCreated | None:
    """The session of a 201, or None where the body cannot be one. `created_at` may be missing."""
    body = _parse(text)
    session_id, url = body.get("id"), body.get("url")
    if not isinstance(session_id, str) or not isinstance(url, str):
        return None
    return SessionCreated(session_id, url) if url.startswith(("ws://", "wss://")) else None


def decode_result(text: str) -> SessionResult:
    """The result; one that cannot be read counts as not done."""
    body = _parse(text)
    status = body.get("status")
    if status not in {"done", "error"}:
        return SessionResult(is_done=False)
    found = []
    for item in _utterances_of(body):
        try:
            found.append(_utterance(item))
        except _MalformedError:
            continue
    return SessionResult(is_done=True, utterances=tuple(found))


def describe_refusal(text: str) -> str:
    """The human part of an error body, with the request id for Gladia's support."""
    body = _parse(text)
    parts = [str(body["message"])] if isinstance(body.get("message"), str) else []
    if isinstance(errors := body.get("validation_errors"), list):
        parts += [str(error) for error in errors]
    if isinstance(request := body.get("request_id"), str):
        parts.append(f"request {request}")
    return "; ".join(parts)[:_DETAIL_CHARACTERS]


def _parse(text: str) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _utterances_of(body: Mapping[str, Any]) -> list[Any]:
    value: Any = body
    for name in ("result", "transcription", "utterances"):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


def _audio_ack(message: Mapping[str, Any]) -> ServerMessage:
    if message.get("acknowledged") is False:
        return AudioAck(accepted=False)
    data = message.get("data")
    if not isinstance(data, dict) or "byte_range" not in data:
        return AudioAck(accepted=True)
    first, last = _pair(data, "byte_range")
    time = data.get("time_range")
    start_time = _pair(data, "time_range")[0] if isinstance(time, list) else None
    start = int(first) // SAMPLE_BYTES
    end = (int(last) + SAMPLE_BYTES - 1) // SAMPLE_BYTES
    return AudioAck(True, start, end, start_time)


def _transcript(message: Mapping[str, Any]) -> ServerMessage:
    data = _object(message, "data")
    identifier, is_final = data.get("id"), data.get("is_final")
    if not isinstance(identifier, str) or not isinstance(is_final, bool):
        raise _MalformedError("id or is_final")
    return Transcript(identifier, is_final, _utterance(data.get("utterance")))


def _translation(message: Mapping[str, Any]) -> ServerMessage:
    data = _object(message, "data")
    identifier, language = data.get("utterance_id"), data.get("target_language")
    if not isinstance(identifier, str) or not isinstance(language, str):
        raise _MalformedError("utterance_id or target_language")
    translated = _utterance(data.get("translated_utterance"))
    return Translation((translated.channel, identifier), language, translated.text)


def _speech_start(message: Mapping[str, Any]) -> ServerMessage:
    return SpeechEdge(True, _time(_object(message, "data"), "time"))


def _speech_end(message: Mapping[str, Any]) -> ServerMessage:
    return SpeechEdge(False, _time(_object(message, "data"), "time"))


def _error(message: Mapping[str, Any]) -> ServerMessage:
    # Not in the OpenAPI; clients expect {"type":"error","data":{"code","message"}}.
    data = message.get("data")
    detail = data if isinstance(data, dict) else message
    code, reason = detail.get("code"), detail.get("message")
    return PeerFault("error_message", f"{code}: {reason}"[:_DETAIL_CHARACTERS])


def _notice(message: Mapping[str, Any]) -> ServerMessage:
    return Notice(message["type"])


_DECODERS: Mapping[str, Callable[[Mapping[str, Any]], ServerMessage]] = {
    "audio_chunk": _audio_ack,
    "transcript": _transcript,
    "translation": _translation,
    "speech_start": _speech_start,
    "speech_end": _speech_end,
    "error": _error,
    "start_session": _notice,
    "start_recording": _notice,
    "stop_recording": _notice,
    "end_recording": _notice,
    "end_session": _notice,
    "named_entity_recognition": _notice,
    "sentiment_analysis": _notice,
    "post_transcript": _notice,
    "post_summarization": _notice,
    "post_chapterization": _notice,
    "post_final_transcript": _notice,
}


def _utterance(value: object) -> HeardUtterance:
    if not isinstance(value, dict):
        raise _MalformedError("utterance")
    text, language, channel = value.get("text"), value.get("language"), value.get("channel", 0)
    if not isinstance(text, str) or not isinstance(channel, int):
        raise _MalformedError("text or channel")
    start_s, end_s = _time(value, "start"), _time(value, "end")
    words = value.get("words")
    return HeardUtterance(
        text=text.strip(),
        start_s=start_s,
        end_s=max(start_s, end_s),
        language=language if isinstance(language, str) and language else None,
        confidence=_confidence(value),
        words=tuple(_words(words)) if isinstance(words, list) else (),
        channel=channel,
    )


def _words(items: list[Any]) -> list[HeardWord]:
    words = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("word"), str):
            raise _MalformedError("words")
        start_s = _time(item, "start")
        end_s = max(start_s, _time(item, "end"))
        words.append(HeardWord(item["word"].strip(), start_s, end_s, _confidence(item)))
    return words


def _object(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = message.get(name)
    if not isinstance(value, dict):
        raise _MalformedError(name)
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _MalformedError(name)
    return value


def _time(data: Mapping[str, Any], name: str) -> float:
    value = _number(data.get(name), name)
    if not 0 <= value <= _MAX_TIME_S:
        raise _MalformedError(name)
    return value


def _confidence(data: Mapping[str, Any]) -> float | None:
    value = data.get("confidence")
    return None if value is None else min(max(_number(value, "confidence"), 0.0), 1.0)


def _pair(data: Mapping[str, Any], name: str) -> tuple[float, float]:
    value = data.get(name)
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - a pair
        raise _MalformedError(name)
    first, last = _number(value[0], name), _number(value[1], name)
    if not 0 <= first <= last:
        raise _MalformedError(name)
    return first, last
