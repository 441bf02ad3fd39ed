"""When the model is asked, what it is shown, and what failures do."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from core.budget import BudgetLimits
from core.errors import ProviderError, RemoteProtocolError
from core.ids import Identity, Slug, UtteranceId
from core.insight import EngineState, InsightLoop, Pace
from core.topics import Reply
from core.transcript import Segment
from core.wire import Insight, Topic

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
_numbers = itertools.count()


def final(text: str, *, at_s: float = 0, name: str = "Ann", **changes: object) -> Segment:
    values: dict[str, object] = {
        "slug": Slug("s"),
        "utterance_id": UtteranceId(f"u{next(_numbers)}"),
        "rev": 1,
        "is_final": True,
        "text": text,
        "identity": Identity("ann"),
        "name": name,
        "started_at": START + timedelta(seconds=at_s),
        "ended_at": START + timedelta(seconds=at_s + 1),
    }
    return Segment(**(values | changes))  # type: ignore[arg-type]  # a table of field values


def reply(current: str = "Budget") -> Reply:
    return Reply(title="Weekly", current_topic=current, topics=(), topic_changed=True)


def answered(loop: InsightLoop, now: float, current: str = "Budget") -> Insight:
    return loop.answered(loop.begin(now), reply(current))


def test_first_call_at_120_characters_then_500_and_three_seconds() -> None:
    loop = InsightLoop()
    loop.add(final("x" * 119))
    assert loop.due_at(0) is None
    loop.add(final("y"))
    assert loop.due_at(0) == 0
    answered(loop, 0)
    loop.add(final("z" * 499))
    assert loop.due_at(1) is None
    loop.add(final("z"))
    assert loop.due_at(1) == 3
    assert loop.due_at(5) == 5


def test_one_call_in_flight_and_its_text_counts_once() -> None:
    loop = InsightLoop()
    loop.add(final("x" * 200))
    call = loop.begin(0)
    loop.add(final("y" * 2000))
    assert loop.due_at(60) is None
    loop.answered(call, reply())
    assert loop.due_at(60) == 60
    answered(loop, 60)
    assert loop.due_at(100) is None


@pytest.mark.parametrize(
    "segment",
    [
        final("x" * 500, is_final=False),
        final("", kind="gap"),
        final("x" * 500, kind="gap"),
        final(""),
    ],
)
def test_only_finals_with_text_count(segment: Segment) -> None:
    loop = InsightLoop()
    loop.add(segment)
    assert loop.due_at(0) is None


def test_a_revised_final_replaces_and_is_no_news() -> None:
    loop = InsightLoop()
    first = final("x" * 119)
    loop.add(first)
    loop.add(final("w" * 119, utterance_id=first.utterance_id, rev=2))
    assert loop.due_at(0) is None
    loop.add(final("y"))
    assert [line.text for line in loop.begin(0).lines] == ["w" * 119, "y"]


def test_window_is_ten_finals_and_2000_characters_newest_kept() -> None:
    loop = InsightLoop()
    for number in range(14):
        loop.add(final(f"{number:02}" + "x" * 100))
    assert [line.text[:2] for line in loop.begin(0).lines] == [f"{n:02}" for n in range(4, 14)]
    loop = InsightLoop()
    for number in range(4):
        loop.add(final(f"{number}" + "x" * 899, name="Bob"))
    window = loop.begin(0).lines
    assert [line.text[0] for line in window] == ["2", "3"]
    assert sum(len(line.text) + len(line.speaker) + 2 for line in window) <= 2000


def test_one_endless_line_is_cut_to_its_end() -> None:
    loop = InsightLoop()
    loop.add(final("a" * 3000 + "END"))
    (line,) = loop.begin(0).lines
    assert line.text.endswith("END")
    assert len(line.text) + len(line.speaker) + 2 <= 2000


def test_a_topic_starts_where_unseen_text_starts() -> None:
    loop = InsightLoop()
    loop.add(final("x" * 200, at_s=10))
    answered(loop, 0, "Budget")
    loop.add(final("y" * 300, at_s=95.7))
    loop.add(final("y" * 300, at_s=130))
    insight = answered(loop, 100, "Hiring")
    assert [(t.label, t.started_at_s) for t in insight.topics] == [("Budget", 0), ("Hiring", 85)]


FAILURES = [
    (ProviderError("busy", status=429, retryable=True, retry_after_s=42), 42, EngineState.FAILING),
    (ProviderError("busy", status=429, retryable=True), 3, EngineState.FAILING),
    (ProviderError("down", status=503, retryable=True), 3, EngineState.FAILING),
    (ProviderError("key", status=401), 300, EngineState.REFUSED),
    (RemoteProtocolError("not JSON"), 3, EngineState.FAILING),
]


@pytest.mark.parametrize(("error", "delay_s", "state"), FAILURES)
def test_a_failure_keeps_the_insight_and_the_text_and_backs_off(
    error: Exception, delay_s: float, state: EngineState
) -> None:
    loop = InsightLoop()
    loop.add(final("x" * 200))
    before = answered(loop, 0)
    loop.add(final("y" * 600, at_s=50))
    loop.begin(10)
    loop.failed(error, 10, chance=0.0)
    assert loop.insight == Insight(
        title=before.title, current_topic=before.current_topic, topics=before.topics
    )
    assert loop.state is state
    assert loop.due_at(10) == 10 + delay_s
    assert loop.begin(10 + delay_s).new_text_at_s == 50


def test_failures_back_off_further_and_a_success_resets() -> None:
    loop = InsightLoop()
    loop.add(final("x" * 200))
    delays = []
    now = 0.0
    for _ in range(9):
        loop.begin(now)
        loop.failed(RemoteProtocolError("bad"), now, chance=0.0)
        due_at = loop.due_at(now)
        assert due_at is not None
        delays.append(due_at - now)
        now = due_at
    assert delays == [3, 6, 12, 24, 48, 96, 192, 300, 300]
    answered(loop, now)
    assert loop.state is EngineState.LIVE


def test_a_reply_that_cannot_be_used_is_a_failure() -> None:
    loop = InsightLoop()
    loop.add(final("x" * 200))
    call = loop.begin(0)
    with pytest.raises(RemoteProtocolError):
        loop.answered(call, reply(current=" "))
    loop.failed(RemoteProtocolError("empty"), 0, chance=0.0)
    assert loop.due_at(0) == 3


def test_the_budget_stops_calls_and_says_so() -> None:
    loop = InsightLoop(limits=BudgetLimits(tokens_per_hour=1000))
    loop.add(final("x" * 200))
    loop.begin(0)
    loop.spent(900, 100, 0)
    loop.failed(RemoteProtocolError("bad"), 0, chance=0.0)
    assert loop.due_at(10) == 3600
    assert loop.state is EngineState.BUDGET
    loop = InsightLoop(limits=BudgetLimits(tokens_per_session=1000))
    loop.add(final("x" * 200))
    loop.begin(0)
    loop.spent(1000, 0, 0)
    loop.failed(RemoteProtocolError("bad"), 0, chance=0.0)
    assert loop.due_at(1e9) is None


def test_a_takeover_goes_on_where_the_other_job_was() -> None:
    stored = Insight(
        title="Weekly",
        current_topic="Budget",
        topics=(Topic(id="t1", label="Budget", started_at_s=0),),
    )
    loop = InsightLoop(restored=stored, started_at=START)
    loop.add(final("x" * 400, at_s=60), seen=True)
    assert loop.state is EngineState.LIVE
    assert loop.insight == stored
    loop.add(final("y" * 499, at_s=600))
    assert loop.due_at(0) is None
    loop.add(final("y", at_s=610))
    call = loop.begin(0)
    assert call.new_text_at_s == 600
    assert [line.text[0] for line in call.lines] == ["x", "y", "y"]
    insight = loop.answered(call, reply("Hiring"))
    assert [topic.id for topic in insight.topics] == ["t1", "t2"]


def test_pace_can_be_set() -> None:
    loop = InsightLoop(pace=Pace(first_characters=5))
    loop.add(final("hello"))
    assert loop.due_at(0) == 0
