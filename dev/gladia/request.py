"""The body of POST /v2/live: a table of its fields, and what they mean to the stand-in.

The table follows Gladia's OpenAPI (re-published at github.com/tryAGI/Gladia, read 2026-08).
"""

import json
from dataclasses import dataclass
from typing import Any

from dev.gladia.checks import either, flag, list_of, map_of, number, one_of, record, text

_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he"
    " hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne"
    " nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk"
    " ur uz vi yi yo zh"
)
LANGUAGES = tuple(_CODES.split())
REGIONS = ("eu-west", "us-west")
_MESSAGE_DEFAULTS = {
    "receive_partial_transcripts": False,
    "receive_final_transcripts": True,
    "receive_speech_events": True,
    "receive_pre_processing_events": True,
    "receive_realtime_processing_events": True,
    "receive_post_processing_events": True,
    "receive_acknowledgments": True,
    "receive_errors": True,
    "receive_lifecycle_events": False,
}
_MESSAGES = dict.fromkeys(_MESSAGE_DEFAULTS, flag)
_LANGUAGE = one_of(*LANGUAGES)
_VOCABULARY_WORD = record(
    {
        "value": text,
        "intensity": number(0, 1),
        "pronunciations": list_of(text),
        "language": _LANGUAGE,
    },
    required=("value",),
)
_TRANSLATION = record(
    {
        "target_languages": list_of(one_of(*LANGUAGES, "wo"), at_least=1),
        "model": one_of("base", "batch", "enhanced"),
        "match_original_utterances": flag,
        "lipsync": flag,
        "context_adaptation": flag,
        "context": text,
        "informal": flag,
    },
    required=("target_languages",),
)
_REALTIME = record(
    {
        "custom_vocabulary": flag,
        "custom_vocabulary_config": record(
            {
                "vocabulary": list_of(either(text, _VOCABULARY_WORD)),
                "default_intensity": number(0, 1),
            },
            required=("vocabulary",),
        ),
        "custom_spelling": flag,
        "custom_spelling_config": record(
            {"spelling_dictionary": map_of(list_of(text))}, required=("spelling_dictionary",)
        ),
        "translation": flag,
        "translation_config": _TRANSLATION,
        "named_entity_recognition": flag,
        "sentiment_analysis": flag,
    }
)
BODY = record(
    {
        "encoding": one_of("wav/pcm", "wav/alaw", "wav/ulaw"),
        "bit_depth": one_of(8, 16, 24, 32),
        "sample_rate": one_of(8000, 16000, 32000, 44100, 48000),
        "channels": number(1, 8, whole=True),
        "custom_metadata": map_of(lambda _value, _path: iter(())),
        "model": one_of("solaria-1"),
        "endpointing": number(0.01, 10),
        "maximum_duration_without_endpointing": number(5, 60),
        "language_config": record({"languages": list_of(_LANGUAGE), "code_switching": flag}),
        "pre_processing": record({"audio_enhancer": flag, "speech_threshold": number(0, 1)}),
        "realtime_processing": _REALTIME,
        "post_processing": record(
            {
                "summarization": flag,
                "summarization_config": record(
                    {"type": one_of("general", "bullet_points", "concise")}
                ),
                "chapterization": flag,
            }
        ),
        "messages_config": record(_MESSAGES),
        "callback": flag,
        "callback_config": record({"url": text, **_MESSAGES}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A valid body with its defaults filled in."""

    encoding: str
    bit_depth: int
    sample_rate: int
    channels: int
    endpointing_s: float
    max_duration_s: float
    languages: tuple[str, ...]
    translate_to: tuple[str, ...]
    spelling: dict[str, list[str]]
    entities: bool
    sentiment: bool
    summary: bool
    messages: dict[str, bool]
    metadata: dict[str, object]
    body: dict[str, Any]

    @property
    def language(self) -> str:
        return self.languages[0] if self.languages else "en"


def problems(body: object, metadata_chars: int) -> list[str]:
    """Every reason to answer 400, as `validation_errors` lists them."""
    found = list(BODY(body, ""))
    if found or not isinstance(body, dict):
        return found
    if len(json.dumps(body.get("custom_metadata", {}))) > metadata_chars:
        found.append(f"custom_metadata must be shorter than {metadata_chars} characters")
    if body.get("encoding") in ("wav/alaw", "wav/ulaw") and body.get("bit_depth", 8) != 8:  # noqa: PLR2004 - companded is 8 bit
        found.append("bit_depth must be 8 for this encoding")
    return found


def parse(body: dict[str, Any]) -> Request:
    """The meaning of a body without problems."""
    realtime = body.get("realtime_processing", {})
    translation = realtime.get("translation_config", {}) if realtime.get("translation") else {}
    spelling = realtime.get("custom_spelling_config", {}) if realtime.get("custom_spelling") else {}
    return Request(
        encoding=body.get("encoding", "wav/pcm"),
        bit_depth=body.get("bit_depth", 16),
        sample_rate=body.get("sample_rate", 16000),
        channels=body.get("channels", 1),
        endpointing_s=float(body.get("endpointing", 0.05)),
        max_duration_s=float(body.get("maximum_duration_without_endpointing", 5)),
        languages=tuple(body.get("language_config", {}).get("languages", ())),
        translate_to=tuple(translation.get("target_languages", ())),
        spelling=dict(spelling.get("spelling_dictionary", {})),
        entities=bool(realtime.get("named_entity_recognition")),
        sentiment=bool(realtime.get("sentiment_analysis")),
        summary=bool(body.get("post_processing", {}).get("summarization")),
        messages={**_MESSAGE_DEFAULTS, **body.get("messages_config", {})},
        metadata=dict(body.get("custom_metadata", {})),
        body=body,
    )
