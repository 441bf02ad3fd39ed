"""A planned one-hour meeting: six topics in two languages, made by rule, the same every time."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from core.ids import Identity, Slug, UtteranceId
from core.transcript import Segment

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
LENGTH_S = 3600


@dataclass(frozen=True, slots=True)
class PlannedTopic:
    """What is talked about from when on; the words return in every line of it."""

    starts_s: int
    words: tuple[str, str]
    fillers: tuple[str, ...]


_ENGLISH = ("a few numbers", "the open points", "an old promise", "several wishes", "one risk")
_RUSSIAN = ("пару цифр", "открытые вопросы", "старое обещание", "один риск", "общий срок")
PLAN = (
    PlannedTopic(0, ("budget", "forecast"), _ENGLISH),
    PlannedTopic(600, ("hiring", "interviews"), _ENGLISH),
    PlannedTopic(1200, ("warehouse", "delivery"), _ENGLISH),
    PlannedTopic(1800, ("реклама", "каналы"), _RUSSIAN),
    PlannedTopic(2400, ("безопасность", "аудит"), _RUSSIAN),
    PlannedTopic(3000, ("conference", "speakers"), _ENGLISH),
)


def meeting(slug: str = "meeting") -> list[Segment]:
    """About 600 finals over an hour, four speakers, in order."""
    chance = random.Random(20261121)
    segments: list[Segment] = []
    at_s = 1.0
    while at_s < LENGTH_S:
        topic = next(t for t in reversed(PLAN) if t.starts_s <= at_s)
        name = chance.choice(("Ann", "Bob", "Carol", "Дима"))
        length_s = chance.uniform(3.0, 7.0)
        one, other = topic.words
        text = f"{one} {chance.choice(topic.fillers)} {other} {chance.choice(topic.fillers)} {one}."
        segments.append(
            Segment(
                slug=Slug(slug),
                utterance_id=UtteranceId(f"u{len(segments):04}"),
                rev=1,
                is_final=True,
                text=text,
                identity=Identity(name.lower()),
                name=name,
                started_at=START + timedelta(seconds=at_s),
                ended_at=START + timedelta(seconds=at_s + length_s),
                language="ru" if topic.fillers is _RUSSIAN else "en",
            )
        )
        at_s += length_s + chance.uniform(0.2, 1.5)
    return segments
