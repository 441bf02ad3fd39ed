"""The insight engine against a strict stand-in for OpenAI, over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from agent.insights import InsightEngine, NewInsight, Restored
from agent.language_model import LanguageModel, ModelSettings, open_language_model
from core.budget import BudgetLimits
from core.insight import EngineState
from core.transcript import Segment
from dev.openai import Fault, HttpFault, OpenAiStandIn
from tests.agent.meeting import LENGTH_S, PLAN, START, meeting


class Clock:
    """Simulated seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def stand_in() -> AsyncIterator[OpenAiStandIn]:
    async with OpenAiStandIn() as running:
        yield running


@pytest.fixture
def settings(stand_in: OpenAiStandIn) -> ModelSettings:
    return ModelSettings(api_key=stand_in.api_key, base_url=stand_in.base_url, timeout_s=60)


@pytest.fixture
async def model(settings: ModelSettings) -> AsyncIterator[LanguageModel]:
    async with open_language_model(settings) as opened:
        yield opened


async def until(condition: Callable[[], bool], deadline_s: float = 50.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - polls state that has no event
            await asyncio.sleep(0.002)


async def replay(engine: InsightEngine, clock: Clock, segments: list[Segment]) -> None:
    """Feeds finals at their own times, as fast as the loop keeps up."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(engine.run(), name="insights")
        for segment in segments:
            clock.now = (segment.ended_at - START).total_seconds()
            engine.offer(segment)
            for _ in range(3):
                await asyncio.sleep(0)
            await until(lambda: engine.calls == answered(engine))
        running.cancel()


def answered(engine: InsightEngine) -> int:
    return len(ANSWERS[engine]) + engine.failures


ANSWERS: dict[InsightEngine, list[NewInsight]] = {}


def make_engine(
    model: LanguageModel,
    settings: ModelSettings,
    clock: Clock,
    restored: Restored | None = None,
) -> InsightEngine:
    answers: list[NewInsight] = []
    engine = InsightEngine(
        model=model, settings=settings, on_insight=answers.append, restored=restored, clock=clock
    )
    ANSWERS[engine] = answers
    return engine


async def test_an_hour_of_meeting_finds_the_planned_topics_in_order(
    stand_in: OpenAiStandIn, model: LanguageModel, settings: ModelSettings
) -> None:
    clock = Clock()
    engine = make_engine(model, settings, clock)
    segments = meeting()
    await replay(engine, clock, segments)

    labels = [topic.label.lower() for topic in engine.insight.topics]
    assert len(labels) == len(PLAN)
    for label, topic, planned in zip(labels, engine.insight.topics, PLAN, strict=True):
        assert any(word in label for word in planned.words)
        window_s = 10 * 8.5
        assert planned.starts_s - window_s <= topic.started_at_s <= planned.starts_s + window_s
    characters = sum(len(segment.text) for segment in segments)
    assert engine.calls <= 1 + characters / 500
    assert engine.calls <= LENGTH_S / 3
    assert stand_in.max_in_flight == 1
    assert (
        engine.tokens_spent <= settings.limits.tokens_per_hour
        if settings.limits.tokens_per_hour
        else True
    )
    assert engine.failures == 0


async def test_a_takeover_in_the_middle_keeps_the_history(
    stand_in: OpenAiStandIn, model: LanguageModel, settings: ModelSettings
) -> None:
    clock = Clock()
    segments = meeting()
    half = len(segments) // 2
    first = make_engine(model, settings, clock)
    await replay(first, clock, segments[:half])
    before = first.insight
    second = make_engine(
        model,
        settings,
        clock,
        Restored(
            insight=before,
            started_at=segments[0].started_at,
            lines=tuple(segments[half - 10 : half]),
        ),
    )
    await replay(second, clock, segments[half:])
    after = second.insight
    assert after.topics[: len(before.topics)] == before.topics
    assert after.title == before.title
    assert len(after.topics) == len(PLAN)
    calls = first.calls + second.calls
    assert calls <= 2 + sum(len(segment.text) for segment in segments) / 500


FAULTS: list[tuple[Fault | HttpFault, EngineState]] = [
    (HttpFault(status=401, code="invalid_api_key"), EngineState.REFUSED),
    (HttpFault(status=404), EngineState.REFUSED),
    (HttpFault(status=429, retry_after="42"), EngineState.FAILING),
    (HttpFault(status=429, code="insufficient_quota"), EngineState.REFUSED),
    (HttpFault(status=500), EngineState.FAILING),
    (HttpFault(status=503, retry_after="Wed, 21 Oct"), EngineState.FAILING),
    ("hang", EngineState.FAILING),
    ("drop", EngineState.FAILING),
    ("garbage", EngineState.FAILING),
    ("refusal", EngineState.FAILING),
    ("truncated", EngineState.FAILING),
    ("not_json", EngineState.FAILING),
    ("wrong_types", EngineState.FAILING),
    ("absurd", EngineState.FAILING),
    ("empty", EngineState.FAILING),
]


@pytest.mark.parametrize(("fault", "state"), FAULTS, ids=str)
async def test_every_fault_keeps_the_insight_and_heals(
    stand_in: OpenAiStandIn,
    settings: ModelSettings,
    fault: Fault | HttpFault,
    state: EngineState,
) -> None:
    quick = replace(settings, timeout_s=3) if fault == "hang" else settings
    async with open_language_model(quick) as model:
        clock = Clock()
        engine = make_engine(model, quick, clock)
        segments = meeting()
        await replay(engine, clock, segments[:3])
        good = engine.insight
        assert good.title

        stand_in.faults.append(fault)
        ahead = iter(segments[3:])
        while stand_in.faults:
            await replay(engine, clock, [next(ahead)])
        assert (engine.failures, engine.state) == (1, state)
        assert engine.insight == good

        await replay(engine, clock, segments[-60:])
        assert (engine.failures, engine.state) == (1, EngineState.LIVE)


async def test_a_wrong_key_is_refused_and_hardly_retried(
    stand_in: OpenAiStandIn, settings: ModelSettings
) -> None:
    wrong = replace(settings, api_key="sk-wrong")
    async with open_language_model(wrong) as model:
        clock = Clock()
        engine = make_engine(model, wrong, clock)
        await replay(engine, clock, meeting()[:60])
    assert engine.state is EngineState.REFUSED
    assert engine.calls <= 2
    assert not stand_in.requests


async def test_the_budget_ends_the_calls(
    stand_in: OpenAiStandIn, model: LanguageModel, settings: ModelSettings
) -> None:
    clock = Clock()
    tight = replace(settings, limits=BudgetLimits(tokens_per_hour=3000))
    engine = make_engine(model, tight, clock)
    await replay(engine, clock, meeting())
    assert engine.state is EngineState.BUDGET
    per_call = engine.tokens_spent / engine.calls
    assert engine.tokens_spent <= 3000 + per_call


async def test_requests_are_exactly_what_the_core_made(
    stand_in: OpenAiStandIn, model: LanguageModel, settings: ModelSettings
) -> None:
    clock = Clock()
    engine = make_engine(model, settings, clock)
    await replay(engine, clock, meeting()[:3])
    assert set(json.loads(stand_in.bodies[0])) == {
        "model", "messages", "response_format", "max_completion_tokens", "temperature",
    }  # fmt: skip
