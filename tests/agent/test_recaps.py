"""Recaps and insights on demand: real PostgreSQL, a strict stand-in for OpenAI."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.insights import NewInsight
from agent.language_model import LanguageModel, ModelSettings, open_language_model
from agent.metrics import Metrics
from agent.on_demand import OnDemandInsights
from agent.recaps import MAX_ATTEMPTS, RecapWriter
from core.errors import NotFound, ProviderError
from core.ids import Slug
from core.recap import recap_from_json
from core.transcript import Segment
from db import insights, store
from db.embedded import EmbeddedConfig
from db.pool import Database, DatabaseSettings, open_database
from db.records import SegmentRecord, SessionEndedRecord, SessionRecord
from dev.openai import HttpFault, OpenAiStandIn
from tests.agent.meeting import START, meeting

SLUG = Slug("meeting")


@pytest.fixture
async def database(database_url: str, tmp_path: object) -> AsyncIterator[Database]:
    settings = DatabaseSettings(
        url=database_url,
        application="test",
        embedded=EmbeddedConfig(home=tmp_path),  # type: ignore[arg-type]  # unused with a URL
    )
    async with open_database(settings) as opened:
        yield opened


@pytest.fixture
async def stand_in() -> AsyncIterator[OpenAiStandIn]:
    async with OpenAiStandIn() as running:
        yield running


@pytest.fixture
async def model(stand_in: OpenAiStandIn) -> AsyncIterator[LanguageModel]:
    async with open_language_model(settings_for(stand_in)) as opened:
        yield opened


def settings_for(stand_in: OpenAiStandIn) -> ModelSettings:
    return ModelSettings(api_key=stand_in.api_key, base_url=stand_in.base_url, timeout_s=5)


async def put(database: Database, segments: list[Segment], *, ended: bool = False) -> None:
    records: list[SessionRecord | SegmentRecord | SessionEndedRecord] = [
        SessionRecord(slug=SLUG, room_sid="RM_1", started_at=START)
    ]
    records += [SegmentRecord(segment) for segment in segments]
    if ended:
        records.append(SessionEndedRecord(slug=SLUG, at=datetime.now(UTC) - timedelta(minutes=1)))
    async with database.connection() as conn:
        await store.apply(conn, records)


def spoken(lines: list[str]) -> list[Segment]:
    return [replace(segment, text=text) for segment, text in zip(meeting(), lines, strict=False)]


async def stored(database: Database) -> insights.StoredRecap:
    async with database.connection() as conn:
        found = await insights.recap(conn, SLUG)
    assert found is not None
    return found


async def test_an_ended_session_gets_one_recap_with_evidence(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn
) -> None:
    lines = ["The budget is tight.", "We agreed to cut travel.", "I will write to the team."]
    segments = spoken(lines)
    await put(database, segments, ended=True)
    metrics = Metrics()
    writer = RecapWriter(database=database, model=model, count=metrics.add)
    assert await writer.write_next()
    assert not await writer.write_next()
    counted = metrics.registry.get_sample_value
    assert counted("roomscribe_recaps_written_total") == 1
    assert counted("roomscribe_recap_calls_total") == 1
    assert counted("roomscribe_recap_statements_dropped_total") == 0
    row = await stored(database)
    assert row.state == "done"
    assert row.recap is not None
    recap = recap_from_json(row.recap)
    assert [(s.text, s.utterance_ids) for s in recap.decisions] == [(lines[1], ("u0001",))]
    (item,) = recap.action_items
    assert (item.text, item.owner, item.utterance_ids) == (lines[2], segments[2].name, ("u0002",))
    assert len(stand_in.requests) == 1


async def test_a_long_meeting_is_read_in_parts_and_the_summary_shortened(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn
) -> None:
    segments = [replace(s, text=s.text * 2) for s in meeting()]
    await put(database, segments, ended=True)
    await RecapWriter(database=database, model=model).write_next()
    names = [r["response_format"]["json_schema"]["name"] for r in stand_in.requests]
    assert names.count("minutes") >= 3
    assert names[-1] == "summary"
    row = await stored(database)
    assert row.recap is not None
    known = {segment.utterance_id for segment in segments}
    recap = recap_from_json(row.recap)
    assert recap.summary
    assert all(set(statement.utterance_ids) <= known for statement in recap.summary)


async def test_sessions_without_speech_or_still_open_get_none(
    database: Database, model: LanguageModel
) -> None:
    writer = RecapWriter(database=database, model=model)
    await put(database, spoken(["The budget is tight."]))
    assert not await writer.write_next()


async def test_two_writers_write_one_recap(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn
) -> None:
    await put(database, spoken(["The budget is tight."]), ended=True)
    stand_in.latency_s = 0.2
    writers = [RecapWriter(database=database, model=model) for _ in range(4)]
    async with asyncio.TaskGroup() as tasks:
        turns = [tasks.create_task(w.write_next(), name="writer") for w in writers]
    assert sorted(turn.result() for turn in turns) == [False, False, False, True]
    assert len(stand_in.requests) == 1


async def test_failures_are_tried_again_later_and_given_up_at_last(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn
) -> None:
    await put(database, spoken(["The budget is tight."]), ended=True)
    writer = RecapWriter(database=database, model=model)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        stand_in.faults.append("truncated" if attempt % 2 else HttpFault(status=500))
        assert await writer.write_next()
        assert not await writer.write_next(), "it waits before it tries again"
        async with database.connection() as conn:
            await conn.execute("update session_recaps set claimed_until = now() - interval '1 s'")
    assert (await stored(database)).state == "failed"
    assert not await writer.write_next()
    await writer.on_demand(SLUG)
    assert (await stored(database)).state == "done"


async def test_on_demand_reports_what_went_wrong(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn
) -> None:
    writer = RecapWriter(database=database, model=model)
    with pytest.raises(NotFound):
        await writer.on_demand(Slug("nobody"))
    await put(database, spoken(["The budget is tight."]))
    stand_in.faults.append("refusal")
    with pytest.raises(ProviderError):
        await writer.on_demand(SLUG)


@pytest.mark.parametrize("clients", [1, 10, 100])
async def test_insights_on_demand_cost_the_same_for_any_number_of_clients(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn, clients: int
) -> None:
    news: list[tuple[Slug, NewInsight]] = []

    async def on_insight(slug: Slug, new: NewInsight) -> None:
        news.append((slug, new))

    engine = OnDemandInsights(
        database=database, model=model, settings=settings_for(stand_in), on_insight=on_insight
    )
    shift = datetime.now(UTC) - START - timedelta(hours=2)
    segments = [
        replace(s, started_at=s.started_at + shift, ended_at=s.ended_at + shift)
        for s in meeting()[:40]
    ]
    await put(database, segments)

    async def ask() -> str:
        return (await engine.refresh(SLUG)).title

    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(ask(), name="client") for _ in range(clients)]
    assert len({answer.result() for answer in answers}) == 1
    assert answers[0].result()
    assert len(stand_in.requests) == 1
    assert [slug for slug, _ in news] == [SLUG]


async def test_insights_on_demand_of_a_quiet_or_unknown_session(
    database: Database, model: LanguageModel, stand_in: OpenAiStandIn
) -> None:

    async def ignore(_slug: Slug, _new: NewInsight) -> None:
        return

    engine = OnDemandInsights(
        database=database, model=model, settings=settings_for(stand_in), on_insight=ignore
    )
    with pytest.raises(NotFound):
        await engine.refresh(SLUG)
    await put(database, spoken(["Hello."]))
    assert (await engine.refresh(SLUG)).title == ""
    stand_in.faults.append("refusal")
    await put(database, meeting()[:40])
    with pytest.raises(ProviderError):
        await engine.refresh(SLUG)
