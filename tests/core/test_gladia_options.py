"""Options: what is sent, what is refused, what the environment says."""

import json
from typing import Any

import pytest

from core.env import Env
from core.errors import ConfigError
from core.gladia.options import GladiaOptions, VocabularyEntry
from core.gladia.settings import options_from_env

EVERYTHING = GladiaOptions(
    region="us-west",
    languages=("en", "fr"),
    code_switching=True,
    audio_enhancer=True,
    vocabulary=(
        VocabularyEntry(value="Roomscribe"),
        VocabularyEntry(
            value="LiveKit", intensity=0.8, pronunciations=("life kit",), language="en"
        ),
    ),
    vocabulary_intensity=0.4,
    spelling={"SQL": ("Sequel",)},
    translation_languages=("de", "wo"),
    translation_context="a stand-up",
    named_entity_recognition=True,
    sentiment_analysis=True,
    summarization="bullet_points",
    callback_url="https://example.org/hook",
)
# Names as in the OpenAPI (InitTranscriptionRequest of the live API, 2026-08-23).
KNOWN: dict[str, Any] = {
    "encoding": 0, "bit_depth": 0, "sample_rate": 0, "channels": 0, "model": 0, "endpointing": 0,
    "maximum_duration_without_endpointing": 0, "custom_metadata": 0,
    "language_config": {"languages": 0, "code_switching": 0},
    "pre_processing": {"audio_enhancer": 0, "speech_threshold": 0},
    "realtime_processing": {
        "custom_vocabulary": 0,
        "custom_vocabulary_config": {"vocabulary": 0, "default_intensity": 0},
        "custom_spelling": 0, "custom_spelling_config": {"spelling_dictionary": 0},
        "translation": 0,
        "translation_config": {
            "target_languages": 0, "model": 0, "match_original_utterances": 0, "lipsync": 0,
            "context_adaptation": 0, "context": 0, "informal": 0,
        },
        "named_entity_recognition": 0, "sentiment_analysis": 0,
    },
    "post_processing": {"summarization": 0, "summarization_config": {"type": 0}},
    "messages_config": dict.fromkeys([
        "receive_partial_transcripts", "receive_final_transcripts", "receive_speech_events",
        "receive_pre_processing_events", "receive_realtime_processing_events",
        "receive_post_processing_events", "receive_acknowledgments", "receive_errors",
        "receive_lifecycle_events",
    ]),
    "callback": 0, "callback_config": {"url": 0},
}  # fmt: skip


def unknown(body: dict[str, Any], known: dict[str, Any]) -> list[str]:
    found = [name for name in body if name not in known]
    for name, below in known.items():
        if isinstance(below, dict) and name in body and name != "spelling_dictionary":
            found += unknown(body[name], below)
    return found


@pytest.mark.parametrize("options", [GladiaOptions(), EVERYTHING])
def test_only_documented_fields_are_sent(options: GladiaOptions) -> None:
    body = options.request_body({"room": "r"})
    assert unknown(body, KNOWN) == []
    assert body["messages_config"]["receive_acknowledgments"] is True
    assert body["messages_config"]["receive_partial_transcripts"] is True
    assert "region" not in body
    json.dumps(body)


def test_values_arrive_where_they_belong() -> None:
    body = EVERYTHING.request_body({})
    assert EVERYTHING.query() == {"region": "us-west"}
    realtime = body["realtime_processing"]
    assert realtime["custom_vocabulary_config"] == {
        "vocabulary": [
            "Roomscribe",
            {
                "value": "LiveKit",
                "intensity": 0.8,
                "pronunciations": ["life kit"],
                "language": "en",
            },
        ],
        "default_intensity": 0.4,
    }
    assert realtime["custom_spelling_config"] == {"spelling_dictionary": {"SQL": ["Sequel"]}}
    assert realtime["translation_config"]["target_languages"] == ["de", "wo"]
    assert body["post_processing"]["summarization_config"] == {"type": "bullet_points"}
    assert body["callback_config"] == {"url": "https://example.org/hook"}
    assert "custom_metadata" not in body


def test_metadata_keeps_gladia_s_limit() -> None:
    metadata = EVERYTHING.request_body({"room": "r", "long": "x" * 3000, "track": "t"})
    assert metadata["custom_metadata"] == {"room": "r", "track": "t"}


WRONG: dict[str, dict[str, Any]] = {
    "model": {"model": "solaria-9"},
    "region": {"region": "mars"},
    "endpointing": {"endpointing": 0.0},
    "duration": {"maximum_duration_without_endpointing": 61},
    "threshold": {"speech_threshold": 1.1},
    "language": {"languages": ("en-US",)},
    "switching": {"code_switching": True},
    "target": {"translation_languages": ("xx",)},
    "empty word": {"vocabulary": (VocabularyEntry(value=" "),)},
    "intensity": {"vocabulary": (VocabularyEntry(value="a", intensity=2),)},
    "callback": {"callback_url": "ftp://x"},
    "summary": {"summarization": "poem"},
    "floor": {"min_final_confidence": -1},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GladiaOptions(**WRONG[name])
    assert len(caught.value.problems) == 1


def test_environment() -> None:
    env = Env({
        "GLADIA_REGION": "eu-west", "GLADIA_LANGUAGES": "EN, fr", "GLADIA_CODE_SWITCHING": "1",
        "GLADIA_VOCABULARY": "Roomscribe, LiveKit:0.8", "GLADIA_VOCABULARY_INTENSITY": "0.3",
        "GLADIA_SPELLING": '{"SQL": ["Sequel"]}', "GLADIA_TRANSLATION_LANGUAGES": "de",
        "GLADIA_SUMMARY": "concise", "GLADIA_MIN_FINAL_CONFIDENCE": "0.4",
    })  # fmt: skip
    options = options_from_env(env)
    env.check()
    assert options == GladiaOptions(
        region="eu-west", languages=("en", "fr"), code_switching=True,
        vocabulary=(
            VocabularyEntry(value="Roomscribe"), VocabularyEntry(value="LiveKit", intensity=0.8)
        ),
        vocabulary_intensity=0.3, spelling={"SQL": ("Sequel",)}, translation_languages=("de",),
        summarization="concise", min_final_confidence=0.4,
    )  # fmt: skip
    assert options_from_env(Env({})) == GladiaOptions()
    vocabulary = '["a", {"value": "b", "intensity": 1, "pronunciations": ["bee"]}]'
    assert options_from_env(Env({"GLADIA_VOCABULARY": vocabulary})).vocabulary == (
        VocabularyEntry(value="a"),
        VocabularyEntry(value="b", intensity=1, pronunciations=("bee",)),
    )


def test_environment_problems_are_named_together() -> None:
    env = Env({
        "GLADIA_ENDPOINTING": "soon", "GLADIA_VOCABULARY": "a:b", "GLADIA_SPELLING": "[]",
        "GLADIA_LANGUAGES": "klingon", "GLADIA_SUMMARY": "poem",
    })  # fmt: skip
    assert options_from_env(env) == GladiaOptions()
    with pytest.raises(ConfigError) as caught:
        env.check()
    text = str(caught.value)
    for name in ("ENDPOINTING", "VOCABULARY", "SPELLING", "klingon", "SUMMARY"):
        assert name in text
