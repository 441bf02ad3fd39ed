"""Whether two pieces of text are the same piece of speech. Pure functions of spans and words."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from core.audio import SAMPLE_RATE
from core.gladia.events import Utterance, UtteranceWord

SAME_SPEECH = 0.6
"""Share of a span that must be covered for it to count as already transcribed."""
SHORTEST = SAMPLE_RATE // 10
"""Samples; no word is shorter."""

Span = tuple[int, int]


def overlap(a: Span, b: Span) -> int:
    """Samples that both spans cover."""
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


def touches(a: Span, b: Span) -> bool:
    """Whether they share more than an edge."""
    return overlap(a, b) >= SHORTEST // 2


def is_speakable(span: Span) -> bool:
    """Whether a word fits in."""
    return span[1] - span[0] >= SHORTEST


def coverage(span: Span, others: Iterable[Span]) -> float:
    """Share of `span` that the others cover, 0..1. They may overlap each other a little."""
    length = max(span[1] - span[0], 1)
    return min(sum(overlap(span, other) for other in others) / length, 1.0)


def untold(spans: Iterable[Span], told: Span, slack: int) -> list[Span]:
    """What a text that was told of one range leaves of the spans.

    The text belongs to a span that it shares more than an edge with: up to `slack` of that before
    and behind it is the silence around the words.
    """
    left = []
    for start, end in spans:
        if not touches((start, end), told):
            left.append((start, end))
            continue
        if told[0] - start > slack:
            left.append((start, told[0]))
        if end - told[1] > slack:
            left.append((told[1], end))
    return left


def normalised(text: str) -> str:
    """Text without case, punctuation and spacing."""
    kept = (c if c.isalnum() else " " for c in text.casefold())
    return " ".join("".join(kept).split())


def is_part_of(text: str, told: str) -> bool:
    """Whether `told` says it all: equal to it, or begins or ends with it."""
    part, whole = normalised(text), normalised(told)
    return whole.startswith(part) or whole.endswith(part)


def without(utterance: Utterance, told: Sequence[Utterance]) -> Utterance | None:
    """What `utterance` says beyond the finals in `told`; None if that is nothing.

    Words whose middle lies in a told span are cut. An utterance without words is kept or dropped
    whole.
    """
    span = (utterance.start_position, utterance.end_position)
    spans = [(final.start_position, final.end_position) for final in told]
    touching = [final for final, s in zip(told, spans, strict=True) if overlap(span, s)]
    if not touching:
        return utterance
    is_covered = coverage(span, spans) >= SAME_SPEECH
    if is_covered and any(is_part_of(utterance.text, final.text) for final in touching):
        return None
    if not utterance.words:
        return None if is_covered else utterance
    return _only(utterance, tuple(w for w in utterance.words if not _is_told(w, spans)))


def before(utterance: Utterance, position: int) -> Utterance | None:
    """What `utterance` says before `position`; None if that is nothing, or not known."""
    return _only(utterance, tuple(w for w in utterance.words if _middle(w) < position))


def _only(utterance: Utterance, kept: tuple[UtteranceWord, ...]) -> Utterance | None:
    if not kept:
        return None
    if len(kept) == len(utterance.words):
        return utterance
    return replace(
        utterance,
        text=" ".join(word.text for word in kept),
        words=kept,
        start_position=kept[0].start_position,
        end_position=max(kept[-1].end_position, kept[0].start_position),
    )


def _is_told(word: UtteranceWord, spans: Sequence[Span]) -> bool:
    return any(start <= _middle(word) < end for start, end in spans)


def _middle(word: UtteranceWord) -> int:
    return (word.start_position + word.end_position) // 2
