"""What a session was about: insights, recap, talk time."""

from datetime import datetime
from typing import Literal

from core.talk import talk_time
from core.wire import Topic
from db import insights, segments
from web.access import Who
from web.call import Call
from web.exports import STORE_TIMEOUT_S
from web.limits import ENGINES
from web.problems import Problem, retry_after
from web.route import AnyRoute, LaxModel, Model, NoQuery, Route


class TopicView(Model):
    """One entry of the topic history."""

    id: str
    label: str
    started_at_sec: int
    """Seconds since the session's first speech."""


class InsightsView(Model):
    """Title, current topic and topic history; empty before the first insight."""

    ai_title: str | None
    current_topic: str | None
    topics: list[TopicView]
    topic_changed: bool
    updated_at: datetime | None


class RefreshBody(LaxModel):
    """Nothing is needed; what old clients send is ignored, the server has the transcript."""


class StatementView(Model):
    """One claim with the utterances that it rests on."""

    text: str
    utterance_ids: list[str]
    owner: str | None = None
    """Who is to do it (action items only)."""


class SummaryView(Model):
    """A session's recap. `pending`: it is being written; `failed`: try again."""

    state: Literal["pending", "done", "failed"]
    summary: list[StatementView]
    decisions: list[StatementView]
    action_items: list[StatementView]
    updated_at: datetime


class SpeakerView(Model):
    """One participant's part."""

    identity: str
    name: str
    talk_s: float
    """Seconds of speech, overlaps of the same speaker counted once."""
    share: float
    """Part of everybody's talk time, 0..1."""
    turns: int
    utterances: int
    words: int
    longest_s: float
    lost_s: float
    """Seconds of this speaker that are known to be lost."""


class StatsView(Model):
    """Talk time of a session."""

    duration_s: float
    """Seconds from the first to the last speech."""
    talk_s: float
    utterances: int
    lost_s: float
    speakers: list[SpeakerView]
    """Longest talk time first."""


async def read(call: Call[NoQuery, None]) -> InsightsView:
    session = call.session
    return InsightsView(
        ai_title=session.ai_title,
        current_topic=session.ai_current_topic,
        topics=_topics(session.ai_topics),
        topic_changed=False,
        updated_at=session.ai_updated_at,
    )


async def refresh(call: Call[NoQuery, RefreshBody]) -> InsightsView:
    engine = call.services.insights
    if engine is None:
        raise no_insights()
    insight = await engine.refresh(call.session.slug)
    async with call.connection() as conn:
        stored = await insights.load(conn, call.session.slug, lines=1)
    return InsightsView(
        ai_title=insight.title or None,
        current_topic=insight.current_topic or None,
        topics=_topics(insight.topics),
        topic_changed=insight.topic_changed,
        updated_at=stored.updated_at,
    )


async def summary(call: Call[NoQuery, None]) -> SummaryView:
    return await _summary(call)


async def summarise(call: Call[NoQuery, None]) -> SummaryView:
    engine = call.services.recaps
    if engine is None:
        raise no_insights()
    await engine.on_demand(call.session.slug)
    return await _summary(call)


async def stats(call: Call[NoQuery, None]) -> StatsView:
    async with call.services.connection(STORE_TIMEOUT_S) as conn:
        rows = await segments.spoken(conn, call.session.id, call.session.slug)
    finals = [row.segment for row in rows if row.segment.is_final]
    spoken = [segment for segment in finals if segment.kind == "speech"]
    speakers = talk_time(finals)
    duration_s = 0.0
    if spoken:
        ends = max(segment.ended_at for segment in spoken)
        duration_s = (ends - min(segment.started_at for segment in spoken)).total_seconds()
    return StatsView(
        duration_s=duration_s,
        talk_s=sum(speaker.talk_s for speaker in speakers),
        utterances=len(spoken),
        lost_s=sum((s.ended_at - s.started_at).total_seconds() for s in finals if s.kind == "gap"),
        speakers=[SpeakerView.model_validate(speaker) for speaker in speakers],
    )


def no_insights() -> Problem:
    """The answer where no language model is configured."""
    return Problem(
        503, "insights_unavailable", "no insight engine is configured here", retry_after(60)
    )


async def _summary(call: Call[NoQuery, None]) -> SummaryView:
    async with call.connection() as conn:
        stored = await insights.recap(conn, call.session.slug)
    if stored is None:
        if call.services.recaps is None:
            raise no_insights()
        raise Problem(404, "no_summary", "no summary is written yet: POST asks for one")
    parts = stored.recap or {"summary": [], "decisions": [], "actionItems": []}
    state: Literal["pending", "done", "failed"] = (
        "done" if stored.state == "done" else "failed" if stored.state == "failed" else "pending"
    )
    return SummaryView(
        state=state,
        summary=[StatementView.model_validate(entry) for entry in parts["summary"]],
        decisions=[StatementView.model_validate(entry) for entry in parts["decisions"]],
        action_items=[StatementView.model_validate(entry) for entry in parts["actionItems"]],
        updated_at=stored.updated_at,
    )


def _topics(topics: tuple[Topic, ...]) -> list[TopicView]:
    return [
        TopicView(id=topic.id, label=topic.label, started_at_sec=topic.started_at_s)
        for topic in topics
    ]


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/api/sessions/{slug}/insights",
        handler=read,
        who=Who.READER,
        summary="Read the current title, topic and topic history",
        tag="insights",
        answer=InsightsView,
        has_etag=True,
    ),
    Route(
        method="POST",
        path="/api/sessions/{slug}/ai/realtime-insights",
        handler=refresh,
        who=Who.READER,
        summary="Bring the insights up to date, if enough was said since",
        tag="insights",
        body=RefreshBody,
        max_body_bytes=64 * 1024,
        answer=InsightsView,
        allowance=ENGINES,
        timeout_s=40.0,
    ),
    Route(
        method="GET",
        path="/api/sessions/{slug}/summary",
        handler=summary,
        who=Who.READER,
        summary="Read the recap: summary, decisions, action items, with their evidence",
        tag="insights",
        answer=SummaryView,
        has_etag=True,
    ),
    Route(
        method="POST",
        path="/api/sessions/{slug}/summary",
        handler=summarise,
        who=Who.MEMBER,
        summary="Write the recap now",
        tag="insights",
        answer=SummaryView,
        allowance=ENGINES,
        timeout_s=120.0,
    ),
    Route(
        method="GET",
        path="/api/sessions/{slug}/stats",
        handler=stats,
        who=Who.READER,
        summary="Read everybody's talk time",
        tag="insights",
        answer=StatsView,
        timeout_s=15.0,
        has_etag=True,
    ),
)
