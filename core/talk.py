"""Talk time: who spoke how long, counted once where one person's segments overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.transcript import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """One identity's part in a session."""

    identity: str
    name: str
    """As of the last utterance."""
    talk_s: float
    """Seconds of speech, overlaps of the same speaker counted once."""
    share: float
    """Part of the sum of all speakers' talk time, 0..1."""
    turns: int
    """Times that this speaker took the word after somebody else."""
    utterances: int
    words: int
    longest_s: float
    """Seconds of the longest uninterrupted speech."""
    lost_s: float
    """Seconds that are known to be lost."""


def talk_time(segments: Sequence[Segment]) -> list[Speaker]:
    """Speakers by talk time, longest first. Interims do not count."""
    finals = sorted(
        (segment for segment in segments if segment.is_final),
        key=lambda segment: (segment.started_at, segment.utterance_id),
    )
    spoken = [segment for segment in finals if segment.kind == "speech" and segment.text]
    turns = _turns(spoken)
    by_identity: dict[str, list[Segment]] = {}
    for segment in spoken:
        by_identity.setdefault(segment.identity, []).append(segment)
    spans = {identity: _merged(parts) for identity, parts in by_identity.items()}
    talk = {identity: sum(map(_length_s, found)) for identity, found in spans.items()}
    total = sum(talk.values())
    speakers = [
        Speaker(
            identity=identity,
            name=parts[-1].name,
            talk_s=talk[identity],
            share=talk[identity] / total if total else 0.0,
            turns=turns[identity],
            utterances=len(parts),
            words=sum(len(part.text.split()) for part in parts),
            longest_s=max(map(_length_s, spans[identity])),
            lost_s=_lost_s(finals, identity),
        )
        for identity, parts in by_identity.items()
    ]
    return sorted(speakers, key=lambda speaker: (-speaker.talk_s, speaker.identity))


Span = tuple[datetime, datetime]


def _turns(spoken: list[Segment]) -> dict[str, int]:
    counts: dict[str, int] = {}
    before: str | None = None
    for segment in spoken:
        if segment.identity != before:
            counts[segment.identity] = counts.get(segment.identity, 0) + 1
            before = segment.identity
    return counts


def _merged(parts: list[Segment]) -> list[Span]:
    """Overlapping spans of one speaker as one; `parts` are in order of their start."""
    spans: list[Span] = []
    for part in parts:
        if spans and part.started_at <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], part.ended_at))
        else:
            spans.append((part.started_at, part.ended_at))
    return spans


def _length_s(span: Span) -> float:
    return (span[1] - span[0]).total_seconds()


def _lost_s(finals: list[Segment], identity: str) -> float:
    return sum(
        (gap.ended_at - gap.started_at).total_seconds()
        for gap in finals
        if gap.kind == "gap" and gap.identity == identity
    )
