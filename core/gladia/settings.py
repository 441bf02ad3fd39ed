"""GladiaOptions from environment variables (`GLADIA_*`)."""

import json
from typing import Any

from core.env import Env
from core.errors import ConfigError
from core.gladia.options import (
    MODELS,
    REGIONS,
    SUMMARIES,
    TRANSLATION_MODELS,
    GladiaOptions,
    VocabularyEntry,
)


def options_from_env(env: Env) -> GladiaOptions:
    """Reads all options; problems are added to `env`, and then defaults are returned."""
    values: dict[str, Any] = {
        "model": env.choice("GLADIA_MODEL", "solaria-1", MODELS),
        "region": env.choice("GLADIA_REGION", "auto", ("auto", *REGIONS)),
        "languages": _lower(env.words("GLADIA_LANGUAGES")),
        "code_switching": env.flag("GLADIA_CODE_SWITCHING", default=False),
        "endpointing": env.number("GLADIA_ENDPOINTING", 0.3, low=0.01, high=10),
        "maximum_duration_without_endpointing": env.number(
            "GLADIA_MAX_DURATION_WITHOUT_ENDPOINTING", 15, low=5, high=60
        ),
        "audio_enhancer": env.flag("GLADIA_AUDIO_ENHANCER", default=False),
        "speech_threshold": env.number("GLADIA_SPEECH_THRESHOLD", 0.6, low=0, high=1),
        "vocabulary": _vocabulary(env),
        "spelling": _spelling(env),
        "translation_languages": _lower(env.words("GLADIA_TRANSLATION_LANGUAGES")),
        "translation_model": env.choice("GLADIA_TRANSLATION_MODEL", "base", TRANSLATION_MODELS),
        "translation_match_original_utterances": env.flag(
            "GLADIA_TRANSLATION_MATCH_ORIGINAL", default=True
        ),
        "translation_lipsync": env.flag("GLADIA_TRANSLATION_LIPSYNC", default=True),
        "translation_context_adaptation": env.flag(
            "GLADIA_TRANSLATION_CONTEXT_ADAPTATION", default=True
        ),
        "translation_context": env.text("GLADIA_TRANSLATION_CONTEXT") or None,
        "translation_informal": env.flag("GLADIA_TRANSLATION_INFORMAL", default=False),
        "named_entity_recognition": env.flag("GLADIA_NAMED_ENTITIES", default=False),
        "sentiment_analysis": env.flag("GLADIA_SENTIMENT", default=False),
        "summarization": env.choice("GLADIA_SUMMARY", "off", ("off", *SUMMARIES)),
        "callback_url": env.text("GLADIA_CALLBACK_URL") or None,
        "min_interim_confidence": env.number("GLADIA_MIN_INTERIM_CONFIDENCE", 0, low=0, high=1),
        "min_final_confidence": env.number("GLADIA_MIN_FINAL_CONFIDENCE", 0, low=0, high=1),
    }
    for name, nothing in (("region", "auto"), ("summarization", "off")):
        values[name] = None if values[name] == nothing else values[name]
    if env.text("GLADIA_VOCABULARY_INTENSITY"):
        values["vocabulary_intensity"] = env.number(
            "GLADIA_VOCABULARY_INTENSITY", 0.5, low=0, high=1
        )
    try:
        return GladiaOptions(**values)
    except ConfigError as error:
        for problem in error.problems:
            env.problem(f"GLADIA: {problem}")
        return GladiaOptions()


def _lower(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.lower() for word in words)


def _vocabulary(env: Env) -> tuple[VocabularyEntry, ...]:
    """A comma-separated list of words, each with an optional `:intensity`; or a JSON array."""
    text = env.text("GLADIA_VOCABULARY")
    try:
        if text.startswith("["):
            return tuple(_entry(item) for item in json.loads(text))
        return tuple(_word(word) for word in env.words("GLADIA_VOCABULARY"))
    except (ValueError, TypeError, KeyError):
        env.problem(
            "GLADIA_VOCABULARY must be words separated by commas (word or word:0.8), or a JSON "
            "array of strings and of objects with value, intensity, pronunciations, language"
        )
        return ()


def _word(word: str) -> VocabularyEntry:
    value, colon, intensity = word.rpartition(":")
    if not colon:
        return VocabularyEntry(value=word)
    return VocabularyEntry(value=value.strip(), intensity=float(intensity))


def _entry(item: Any) -> VocabularyEntry:
    if isinstance(item, str):
        return VocabularyEntry(value=item)
    intensity = item.get("intensity")
    return VocabularyEntry(
        value=str(item["value"]),
        intensity=None if intensity is None else float(intensity),
        pronunciations=tuple(str(sound) for sound in item.get("pronunciations", ())),
        language=item.get("language"),
    )


def _spelling(env: Env) -> dict[str, tuple[str, ...]]:
    """A JSON object: the right spelling, and a list of what is heard."""
    text = env.text("GLADIA_SPELLING", "{}")
    try:
        return {
            str(right): tuple(str(item) for item in heard)
            for right, heard in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError):
        env.problem('GLADIA_SPELLING must be a JSON object such as {"SQL": ["Sequel"]}')
        return {}
