"""The messages of the socket, as the OpenAPI spells them, and which flag asks for each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dev.gladia.ear import HeardWord

Message = dict[str, Any]

_FLAGS = {
    "audio_chunk": "receive_acknowledgments",
    "stop_recording": "receive_acknowledgments",
    "speech_start": "receive_speech_events",
    "speech_end": "receive_speech_events",
    "translation": "receive_realtime_processing_events",
    "named_entity_recognition": "receive_realtime_processing_events",
    "sentiment_analysis": "receive_realtime_processing_events",
    "post_transcript": "receive_post_processing_events",
    "post_summarization": "receive_post_processing_events",
    "post_final_transcript": "receive_post_processing_events",
    "start_session": "receive_lifecycle_events",
    "start_recording": "receive_lifecycle_events",
    "end_recording": "receive_lifecycle_events",
    "end_session": "receive_lifecycle_events",
    "error": "receive_errors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One utterance as it stands; times are seconds of the session's audio."""

    id: str
    channel: int
    language: str
    start_s: float
    end_s: float
    words: tuple[HeardWord, ...]

    @property
    def text(self) -> str:
        """With the leading space that the service sends."""
        return "".join(f" {word.text}" for word in self.words)

    def shifted(self, offset_s: float) -> "Utterance":
        """The same, `offset_s` seconds later."""
        words = tuple(
            replace(word, start_s=word.start_s + offset_s, end_s=word.end_s + offset_s)
            for word in self.words
        )
        start_s, end_s = self.start_s + offset_s, self.end_s + offset_s
        return replace(self, start_s=start_s, end_s=end_s, words=words)

    def to_json(self, text: str | None = None) -> Message:
        confidences = [word.confidence for word in self.words] or [0.0]
        return {
            "start": round(self.start_s, 3),
            "end": round(self.end_s, 3),
            "confidence": round(sum(confidences) / len(confidences), 3),
            "channel": self.channel,
            "text": self.text if text is None else f" {text}",
            "language": self.language,
            "words": [
                {
                    "word": f" {word.text}",
                    "start": round(word.start_s, 3),
                    "end": round(word.end_s, 3),
                    "confidence": round(word.confidence, 3),
                }
                for word in self.words
            ],
        }


def flag_of(message: Message) -> str:
    """The messages_config flag that asks for this message."""
    if message["type"] == "transcript":
        final = message["data"]["is_final"]
        return "receive_final_transcripts" if final else "receive_partial_transcripts"
    return _FLAGS[message["type"]]


def timestamp() -> str:
    """Now, as in `created_at`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dumps(message: Message) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


class MessageWriter:
    """Makes the messages of one session."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def make(self, kind: str, data: Message | None = None, **more: object) -> Message:
        """A message of type `kind`, without `data` where that is None."""
        message: Message = {
            "session_id": self._session_id,
            "created_at": timestamp(),
            "type": kind,
            **more,
        }
        if data is not None:
            message["data"] = data
        return message

    def ack(self, byte_range: tuple[int, int], time_range: tuple[float, float]) -> Message:
        data = {
            "byte_range": list(byte_range),
            "time_range": [round(second, 4) for second in time_range],
        }
        return self.make("audio_chunk", data, acknowledged=True, error=None)

    def refusal(self, reason: str) -> Message:
        error = {"message": reason}
        return {**self.make("audio_chunk", acknowledged=False, error=error), "data": None}

    def stop_ack(self, duration_s: float, left_s: float) -> Message:
        data = {
            "recording_duration": round(duration_s, 3),
            "recording_left_to_process": round(left_s, 3),
        }
        return self.make("stop_recording", data, acknowledged=True, error=None)

    def error(self, code: str, reason: str) -> Message:
        return self.make("error", {"code": code, "message": reason})

    def transcript(
        self, utterance: Utterance, *, is_final: bool, text: str | None = None
    ) -> Message:
        body = utterance.to_json(text)
        return self.make(
            "transcript", {"id": utterance.id, "is_final": is_final, "utterance": body}
        )

    def translation(self, utterance: Utterance, language: str) -> Message:
        """A translation that only says which language it would be in."""
        translated = utterance.to_json(f"[{language}]{utterance.text}") | {"language": language}
        data = {
            "utterance_id": utterance.id,
            "utterance": utterance.to_json(),
            "original_language": utterance.language,
            "target_language": language,
            "translated_utterance": translated,
        }
        return self.make("translation", data, error=None)

    def analysis(self, kind: str, utterance: Utterance, results: Sequence[Message]) -> Message:
        data = {
            "utterance_id": utterance.id,
            "utterance": utterance.to_json(),
            "results": list(results),
        }
        return self.make(kind, data, error=None)
