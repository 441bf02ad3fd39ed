"""From Gladia's times to the speaker's time line, for whole utterances."""

from dataclasses import dataclass
from typing import TypeAlias

from core.audio import SAMPLE_RATE
from core.gladia.events import Utterance, UtteranceWord
from core.gladia.messages import HeardUtterance
from core.gladia.overlap import Span
from core.gladia.timeline import Timeline

Hearing: TypeAlias = tuple[int, int]
"""Leg, interruptions. What one hearing made final, the next may repeat."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who says something: a leg, and which of its hearings, since a lost connection begins one."""

    leg: int
    interruptions: int
    """Connections that the leg has lost so far."""
    hears_from: int
    """Where it began to hear after the last one. The server may have forgotten what was before."""
    timeline: Timeline

    @property
    def hearing(self) -> Hearing:
        return self.leg, self.interruptions


def placed(timeline: Timeline, heard: HeardUtterance, *, is_final: bool) -> Utterance | None:
    """The utterance on the speaker's time line, not named yet; None if it cannot be there."""
    span = _span(timeline, heard.start_s, heard.end_s)
    if span is None:
        return None
    words = []
    for word in heard.words:
        place = _span(timeline, word.start_s, word.end_s) or span
        words.append(
            UtteranceWord(
                text=word.text,
                start_position=place[0],
                end_position=place[1],
                confidence=word.confidence,
            )
        )
    return Utterance(
        utterance_id="",
        rev=0,
        is_final=is_final,
        text=heard.text,
        start_position=span[0],
        end_position=span[1],
        language=heard.language,
        confidence=heard.confidence,
        words=tuple(words),
    )


def span_of(utterance: Utterance) -> Span:
    """Where it is on the time line."""
    return utterance.start_position, utterance.end_position


def _span(timeline: Timeline, start_s: float, end_s: float) -> Span | None:
    start = timeline.start_position(round(start_s * SAMPLE_RATE))
    end = timeline.end_position(round(end_s * SAMPLE_RATE))
    if start is None or end is None:
        return None
    return start, max(start, end)
