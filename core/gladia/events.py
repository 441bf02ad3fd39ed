"""What a live session tells its owner. All values are frozen; positions are source samples."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

State: TypeAlias = Literal["idle", "live", "reconnecting", "queued", "failed", "draining", "done"]
"""idle: no Gladia session is open, none is needed. live: audio flows and is acknowledged.
reconnecting: audio is buffered meanwhile. queued: waits for a free Gladia session. failed: Gladia
refuses us, or keeps failing; audio is buffered as far as the buffer goes, retries are slow.
draining: no more audio, the last finals are awaited. done: nothing will follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceWord:
    """One recognised word."""

    text: str
    start_position: int
    end_position: int
    confidence: float | None = None
    """0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One version of one utterance.

    The id is stable over interims, the final, a later revision of the final, and a replay of the
    audio into another Gladia session. An **empty `text` withdraws** an utterance whose interims
    were shown: its words turned out to be none, or to belong to another utterance.
    """

    utterance_id: str
    rev: int
    """Grows with each version, from 1."""
    is_final: bool
    text: str
    """Stripped; empty only in a final that withdraws what was shown."""
    start_position: int
    """Samples on the speaker's time line."""
    end_position: int
    """Samples, never before `start_position`."""
    language: str | None = None
    confidence: float | None = None
    """0..1."""
    words: tuple[UtteranceWord, ...] = ()
    translations: dict[str, str] = field(default_factory=dict)
    """Text by target language."""
    provisional: bool = False
    """A final made of the last interim, because Gladia's own final did not arrive in time."""


@dataclass(frozen=True, slots=True)
class Interim:
    """The utterance so far; the next version replaces it."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Final:
    """The utterance is complete. A higher `rev` of the same id may still correct it."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Gladia's own voice detection heard the speaker begin."""

    position: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Gladia's own voice detection heard the speaker stop."""

    position: int


@dataclass(frozen=True, slots=True)
class AudioLost:
    """Audio of this range will never be transcribed. The range may contain silence."""

    start_position: int
    end_position: int
    reason: str
    """buffer_full | provider_lost | gave_up; found outside of Gladia: network | deaf."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The speaker's transcription changed its state; sent once per change."""

    state: State
    reason: str | None = None
    """gladia_unauthorized | gladia_quota | gladia_forbidden | gladia_rejected | gladia_busy |
    gladia_unavailable | gladia_unstable | connection_lost | no_slot, or None."""
    status: int | None = None
    """HTTP status of the refusal behind `reason`, where there was one."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Audio that Gladia received and bills, since the last Usage event."""

    audio_s: float


@dataclass(frozen=True, slots=True)
class PeerFault:
    """Gladia broke its protocol, or failed in a way worth counting. Nothing needs to be done."""

    kind: str
    """Stable, low cardinality: fit for a metric label."""
    detail: str = ""
    """For the log. Never carries transcript text."""


Event: TypeAlias = (
    Interim | Final | SpeechStarted | SpeechEnded | AudioLost | StateChanged | Usage | PeerFault
)
