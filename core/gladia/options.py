"""Every documented option of POST /v2/live, validated, and the request made of them.

The audio format is not an option: the house speaks one PCM format (`core.audio`). Fields that the
OpenAPI does not know are never sent, since Gladia answered 400 to them (livekit/agents#3014):
`words_accurate_timestamps` and live `diarization` do not exist, `chapterization` is ignored by
the server, and `region` belongs into the query.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.audio import SAMPLE_BYTES, SAMPLE_RATE
from core.errors import ConfigError
from core.gladia.languages import TRANSCRIPTION_LANGUAGES, TRANSLATION_LANGUAGES

MODELS = ("solaria-1",)
REGIONS = ("eu-west", "us-west")
TRANSLATION_MODELS = ("base", "enhanced", "batch")
SUMMARIES = ("general", "bullet_points", "concise")
METADATA_CHARACTERS = 2000
"""Gladia's limit on `custom_metadata` as JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyEntry:
    """A word that Gladia should expect."""

    value: str
    intensity: float | None = None
    """0..1; None for the default intensity."""
    pronunciations: tuple[str, ...] = ()
    language: str | None = None

    def as_json(self) -> str | dict[str, Any]:
        """The short form where nothing but the word is given."""
        extra: dict[str, Any] = {}
        if self.intensity is not None:
            extra["intensity"] = self.intensity
        if self.pronunciations:
            extra["pronunciations"] = list(self.pronunciations)
        if self.language is not None:
            extra["language"] = self.language
        return {"value": self.value, **extra} if extra else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class GladiaOptions:
    """Options of a Gladia live session. Raises ConfigError with all problems at once."""

    model: str = "solaria-1"
    region: str | None = None
    """eu-west | us-west; None lets Gladia choose."""
    languages: tuple[str, ...] = ()
    """ISO codes that are spoken; empty detects the language."""
    code_switching: bool = False
    """Detect the language anew for each utterance; needs a list of languages."""
    endpointing: float = 0.3
    """Seconds of silence that end an utterance, 0.01..10. Gladia's own default of 0.05 cuts
    meetings into crumbs; its guide recommends 0.3 to 0.5 for them."""
    maximum_duration_without_endpointing: float = 15.0
    """Seconds after which an utterance is ended without silence, 5..60."""
    audio_enhancer: bool = False
    speech_threshold: float = 0.6
    """0..1; higher is stricter."""
    vocabulary: tuple[VocabularyEntry, ...] = ()
    vocabulary_intensity: float | None = None
    """0..1: default intensity of the vocabulary; None leaves it to Gladia."""
    spelling: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The right spelling, and what is heard instead of it."""
    translation_languages: tuple[str, ...] = ()
    """Target languages; empty switches translation off. The original is always kept."""
    translation_model: str = "base"
    translation_match_original_utterances: bool = True
    translation_lipsync: bool = True
    translation_context_adaptation: bool = True
    translation_context: str | None = None
    translation_informal: bool = False
    named_entity_recognition: bool = False
    sentiment_analysis: bool = False
    summarization: str | None = None
    """general | bullet_points | concise: a summary by Gladia after the end; None for none."""
    callback_url: str | None = None
    """Gladia posts its messages there as well."""
    min_interim_confidence: float = 0.0
    """0..1, ours: interims below it are not shown."""
    min_final_confidence: float = 0.0
    """0..1, ours: finals below it are dropped."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError(problems)

    def query(self) -> dict[str, str]:
        """Query parameters of POST /v2/live."""
        return {} if self.region is None else {"region": self.region}

    def request_body(self, custom_metadata: Mapping[str, str]) -> dict[str, Any]:
        """The JSON body of POST /v2/live.

        Args:
            custom_metadata: how to find this session again; cut off where it is too long.
        """
        body: dict[str, Any] = {
            "encoding": "wav/pcm",
            "bit_depth": SAMPLE_BYTES * 8,
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "model": self.model,
            "endpointing": self.endpointing,
            "maximum_duration_without_endpointing": self.maximum_duration_without_endpointing,
            "language_config": {
                "languages": list(self.languages),
                "code_switching": self.code_switching,
            },
            "pre_processing": {
                "audio_enhancer": self.audio_enhancer,
                "speech_threshold": self.speech_threshold,
            },
            "realtime_processing": self._realtime_processing(),
            "post_processing": self._post_processing(),
            "messages_config": _MESSAGES_CONFIG,
        }
        if metadata := _fitting(custom_metadata):
            body["custom_metadata"] = metadata
        if self.callback_url is not None:
            body["callback"] = True
            body["callback_config"] = {"url": self.callback_url}
        return body

    def _realtime_processing(self) -> dict[str, Any]:
        processing: dict[str, Any] = {
            "named_entity_recognition": self.named_entity_recognition,
            "sentiment_analysis": self.sentiment_analysis,
        }
        if self.vocabulary:
            vocabulary: dict[str, Any] = {"vocabulary": [e.as_json() for e in self.vocabulary]}
            if self.vocabulary_intensity is not None:
                vocabulary["default_intensity"] = self.vocabulary_intensity
            processing |= {"custom_vocabulary": True, "custom_vocabulary_config": vocabulary}
        if self.spelling:
            dictionary = {right: list(heard) for right, heard in self.spelling.items()}
            processing |= {
                "custom_spelling": True,
                "custom_spelling_config": {"spelling_dictionary": dictionary},
            }
        if self.translation_languages:
            processing |= {"translation": True, "translation_config": self._translation()}
        return processing

    def _translation(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "target_languages": list(self.translation_languages),
            "model": self.translation_model,
            "match_original_utterances": self.translation_match_original_utterances,
            "lipsync": self.translation_lipsync,
            "context_adaptation": self.translation_context_adaptation,
            "informal": self.translation_informal,
        }
        if self.translation_context is not None:
            config["context"] = self.translation_context
        return config

    def _post_processing(self) -> dict[str, Any]:
        if self.summarization is None:
            return {"summarization": False}
        return {"summarization": True, "summarization_config": {"type": self.summarization}}

    def _problems(self) -> Iterator[str]:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                yield f"{name} must be one of: {', '.join(allowed)}"
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                yield f"{name} must be from {low} to {high}"
        yield from _unknown(self.languages, TRANSCRIPTION_LANGUAGES, "languages")
        yield from _unknown(
            self.translation_languages, TRANSLATION_LANGUAGES, "translation_languages"
        )
        if self.code_switching and not self.languages:
            yield ("code_switching needs languages: among all of them Gladia misdetects too often")
        yield from self._vocabulary_problems()

    def _vocabulary_problems(self) -> Iterator[str]:
        for entry in self.vocabulary:
            if not entry.value.strip():
                yield "vocabulary must not contain an empty word"
            if entry.intensity is not None and not 0 <= entry.intensity <= 1:
                yield f"vocabulary: the intensity of {entry.value!r} must be from 0 to 1"
            if entry.language is not None:
                yield from _unknown((entry.language,), TRANSCRIPTION_LANGUAGES, "vocabulary")
        if self.callback_url is not None and not self.callback_url.startswith(
            ("https://", "http://")
        ):
            yield "callback_url must be an http or https address"


_MESSAGES_CONFIG: Mapping[str, bool] = {
    # Not the owner's to choose: resume stands on acknowledgements, identity on interims.
    "receive_partial_transcripts": True,
    "receive_final_transcripts": True,
    "receive_speech_events": True,
    "receive_pre_processing_events": False,
    "receive_realtime_processing_events": True,
    "receive_post_processing_events": False,
    "receive_acknowledgments": True,
    "receive_errors": True,
    "receive_lifecycle_events": True,
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "model": MODELS,
    "region": REGIONS,
    "translation_model": TRANSLATION_MODELS,
    "summarization": SUMMARIES,
}
_RANGES: Mapping[str, tuple[float, float]] = {
    "endpointing": (0.01, 10),
    "maximum_duration_without_endpointing": (5, 60),
    "speech_threshold": (0, 1),
    "vocabulary_intensity": (0, 1),
    "min_interim_confidence": (0, 1),
    "min_final_confidence": (0, 1),
}


def _unknown(codes: tuple[str, ...], known: frozenset[str], name: str) -> Iterator[str]:
    for code in codes:
        if code not in known:
            yield f"{name}: {code!r} is not one of Gladia's language codes (such as en, fr, de)"


def _fitting(metadata: Mapping[str, str]) -> dict[str, str]:
    """As many items as fit into Gladia's limit, in order."""
    fitting: dict[str, str] = {}
    for key, value in metadata.items():
        if len(json.dumps(fitting | {key: value})) <= METADATA_CHARACTERS:
            fitting[key] = value
    return fitting
