"""From what Gladia recognised to the line that is stored and shown under a speaker's name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from core.gladia.events import AudioLost, Utterance
from core.ids import Identity, Slug, TrackSid, UtteranceId
from core.transcript import Segment, Source, Word

CaptureTime = Callable[[int], datetime]
"""UTC capture time of a position on the source's time line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Whose voice a source carries, as of now."""

    slug: Slug
    identity: Identity
    name: str
    user_id: str | None = None
    track_sid: TrackSid | None = None
    source: Source = "agent"


def line(utterance: Utterance, voice: Voice, at: CaptureTime) -> Segment:
    """The segment for one version of an utterance."""
    words = tuple(
        Word(
            text=word.text,
            started_at=at(word.start_position),
            ended_at=at(word.end_position),
            confidence=word.confidence,
        )
        for word in utterance.words
    )
    started_at = at(utterance.start_position)
    return Segment(
        slug=voice.slug,
        utterance_id=UtteranceId(utterance.utterance_id),
        rev=utterance.rev,
        is_final=utterance.is_final,
        text=utterance.text,
        identity=voice.identity,
        name=voice.name,
        started_at=started_at,
        ended_at=max(started_at, at(utterance.end_position)),
        source=voice.source,
        user_id=voice.user_id,
        track_sid=voice.track_sid,
        language=utterance.language,
        confidence=utterance.confidence,
        words=words,
        translations=utterance.translations,
    )


@dataclass(slots=True)
class Gaps:
    """Turns losses into gap segments; a loss that goes on makes the same gap longer."""

    prefix: str
    """Makes the ids unique in the session."""
    _count: int = 0
    _last: AudioLost | None = field(default=None)
    _rev: int = 0

    def gap(self, lost: AudioLost, voice: Voice, at: CaptureTime) -> Segment:
        last = self._last
        goes_on = last is not None and (last.end_position, last.reason) == (
            lost.start_position,
            lost.reason,
        )
        if last is not None and goes_on:
            lost = AudioLost(last.start_position, lost.end_position, lost.reason)
            self._rev += 1
        else:
            self._count, self._rev = self._count + 1, 1
        self._last = lost
        started_at = at(lost.start_position)
        return Segment(
            slug=voice.slug,
            utterance_id=UtteranceId(f"{self.prefix}-gap{self._count}"),
            rev=self._rev,
            is_final=True,
            text="",
            identity=voice.identity,
            name=voice.name,
            started_at=started_at,
            ended_at=max(started_at, at(lost.end_position)),
            kind="gap",
            source=voice.source,
            user_id=voice.user_id,
            track_sid=voice.track_sid,
            reason=lost.reason,
        )
