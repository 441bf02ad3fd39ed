"""A segment: the stored and published form of one utterance, and the rule which version wins."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from core.ids import Identity, Slug, TrackSid, UtteranceId

Source = Literal["agent", "rtmp", "track"]
"""Which ear heard it: the bot in the room, the mixed RTMP stream, a Track Egress."""
Kind = Literal["speech", "gap"]
"""`gap` marks audio that is known to be lost: its text is empty, its times say what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One recognised word."""

    text: str
    started_at: datetime
    """UTC capture time."""
    ended_at: datetime
    """UTC capture time."""
    confidence: float | None = None
    """0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One version of one utterance, under its speaker's name.

    Natural keys only: (slug, utterance_id) finds the row, (slug, identity) the participant.
    """

    slug: Slug
    utterance_id: UtteranceId
    rev: int
    """Grows with each change of this utterance, from 1."""
    is_final: bool
    text: str
    """Stripped; empty in a gap."""
    identity: Identity
    """The speaker; `""` where a mixed source cannot tell."""
    name: str
    """Display name at the time of speaking."""
    started_at: datetime
    """UTC capture time, on one clock per session."""
    ended_at: datetime
    """UTC capture time, never before `started_at`."""
    kind: Kind = "speech"
    source: Source = "agent"
    user_id: str | None = None
    """Id of the signed-in user behind the identity, if known."""
    track_sid: TrackSid | None = None
    language: str | None = None
    """ISO 639-1 code as the provider gave it."""
    confidence: float | None = None
    """0..1."""
    words: tuple[Word, ...] = ()
    translations: dict[str, str] = field(default_factory=dict)
    """Text by target language; the original stays in `text`."""
    reason: str | None = None
    """Why audio was lost (gap only)."""
    attribution: str | None = None
    """How a mixed source found the speaker: direct, label or none. None where the track tells."""
    attribution_confidence: float | None = None
    """0..1."""


def supersedes(new: Segment, old: Segment) -> bool:
    """Whether `new` replaces `old`: finals beat interims, then the higher revision wins."""
    return (new.is_final, new.rev) > (old.is_final, old.rev)
