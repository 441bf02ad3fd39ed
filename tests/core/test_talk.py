"""Talk time, as a table of small meetings."""

from datetime import UTC, datetime, timedelta

import pytest

from core.ids import Identity, Slug, UtteranceId
from core.talk import talk_time
from core.transcript import Segment

START = datetime(2026, 5, 4, tzinfo=UTC)


def spoken(
    who: str, start_s: float, end_s: float, text: str = "one two", **more: object
) -> Segment:
    fields: dict[str, object] = {
        "slug": Slug("s"),
        "utterance_id": UtteranceId(f"{who}-{start_s}"),
        "rev": 1,
        "is_final": True,
        "text": text,
        "identity": Identity(who),
        "name": who.title(),
        "started_at": START + timedelta(seconds=start_s),
        "ended_at": START + timedelta(seconds=end_s),
    }
    return Segment(**(fields | more))  # type: ignore[arg-type]  # test values


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], []),
        ([spoken("ann", 0, 4)], [("ann", 4, 1, 4)]),
        ([spoken("ann", 0, 4), spoken("ann", 3, 6)], [("ann", 6, 1, 6)]),
        ([spoken("ann", 0, 4), spoken("ann", 1, 2), spoken("ann", 5, 6)], [("ann", 5, 1, 4)]),
        (
            [spoken("ann", 0, 2), spoken("bob", 2, 8), spoken("ann", 9, 10)],
            [("bob", 6, 1, 6), ("ann", 3, 2, 2)],
        ),
        ([spoken("ann", 0, 4), spoken("bob", 0, 9, is_final=False)], [("ann", 4, 1, 4)]),
    ],
)
def test_talk_time(segments: list[Segment], expected: list[tuple[str, float, int, float]]) -> None:
    found = talk_time(segments)
    assert [(s.identity, s.talk_s, s.turns, s.longest_s) for s in found] == expected
    assert sum(s.share for s in found) == pytest.approx(1.0 if expected else 0.0)


def test_lost_speech_counts_as_lost_not_as_talk() -> None:
    gap = spoken("ann", 4, 7, text="", kind="gap", utterance_id=UtteranceId("gap"))
    (ann,) = talk_time([spoken("ann", 0, 4), gap])
    assert (ann.talk_s, ann.lost_s, ann.words, ann.utterances) == (4, 3, 2, 1)
