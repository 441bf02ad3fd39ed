"""Starting and stopping the fallback, active speakers, and lines from an ingest process."""

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from core.ids import Identity
from core.wire import MAX_MESSAGE_BYTES
from web.access import Who
from web.call import Call
from web.engines import FallbackEngine, FallbackState, SpeakerReport
from web.limits import ENGINES, REPORTS, SERVICES
from web.problems import Problem, retry_after
from web.route import AnyRoute, LaxModel, Line, Model, NoQuery, Route

SlugField = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[^\u0000-\u001f\u007f]*$")
]


class StartBody(LaxModel):
    """Which session to transcribe without a bot, and how."""

    session_slug: SlugField
    mode: Literal["auto", "composite", "tracks"] = "auto"
    """`composite`: the room's mix by RTMP; `tracks`: each track by WebSocket."""


class StopBody(LaxModel):
    """Which session's fallback to stop."""

    session_slug: SlugField


class FallbackView(Model):
    """What carries the session's audio, if not a bot in the room."""

    state: Literal["starting", "running", "stopping", "off"]
    source: Literal["rtmp", "track"] | None
    egress_ids: list[str]


class ActiveSpeakers(LaxModel):
    """Who speaks now, as a browser in the room hears it."""

    session_slug: SlugField
    speakers: Annotated[list[Annotated[Line, Field(max_length=256)]], Field(max_length=50)]
    """Identities, loudest first; empty in a silence."""
    at: Annotated[int, Field(ge=0, le=2**53)]
    """Milliseconds since the epoch on the browser's clock."""


class Accepted(Model):
    """It was taken."""

    success: Literal[True] = True


class Broadcast(LaxModel):
    """A message as in the data topics; see docs/schemas. Further fields pass unchanged."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)
    type: Literal["transcript", "insights", "status", "transcription_error"]
    session_slug: SlugField


async def start(call: Call[NoQuery, StartBody]) -> FallbackView:
    session = await call.enter(call.body.session_slug, Who.MEMBER)
    engine = _engine(call.services.fallback)
    if session.status == "ended":
        raise Problem(409, "session_ended", "this session has ended")
    return _view(await engine.start(session.slug, call.body.mode))


async def stop(call: Call[NoQuery, StopBody]) -> FallbackView:
    session = await call.enter(call.body.session_slug, Who.MEMBER)
    return _view(await _engine(call.services.fallback).stop(session.slug))


async def active_speaker(call: Call[NoQuery, ActiveSpeakers]) -> Accepted:
    seat = call.caller.seat
    assert seat is not None
    if seat.slug != call.body.session_slug:
        raise Problem(403, "forbidden", "the room token is for another session")
    report = SpeakerReport(speakers=tuple(map(Identity, call.body.speakers)), at_ms=call.body.at)
    _engine(call.services.fallback).active_speakers(seat.slug, seat.identity, report)
    return Accepted()


async def broadcast(call: Call[NoQuery, Broadcast]) -> Accepted:
    """Hands a message to the viewers of all web processes, to ours without a detour."""
    content = call.body.model_dump(by_alias=True)
    message = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    if len(message) > MAX_MESSAGE_BYTES:
        raise Problem(413, "body_too_large", f"at most {MAX_MESSAGE_BYTES} bytes")
    slug = call.body.session_slug
    call.services.hub.received(slug, message)
    await call.services.bus.publish([(slug, message)])
    _observe_latency(call, content.get("ts"))
    return Accepted()


def _observe_latency(call: Call[NoQuery, Broadcast], ts: object) -> None:
    try:
        sent = datetime.fromisoformat(str(ts))
    except ValueError:
        return
    if sent.tzinfo is not None:
        latency_s = (datetime.now(UTC) - sent).total_seconds()
        call.services.counters.ingest_latency.observe(max(0.0, latency_s))


def _engine(engine: FallbackEngine | None) -> FallbackEngine:
    if engine is None:
        raise Problem(
            503, "fallback_unavailable", "no ingest runs in this process", retry_after(60)
        )
    return engine


def _view(state: FallbackState) -> FallbackView:
    return FallbackView(state=state.state, source=state.source, egress_ids=list(state.egress_ids))


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/api/transcription/start",
        handler=start,
        who=Who.USER,
        summary="Transcribe a session through LiveKit Egress (members of its space)",
        tag="transcription",
        body=StartBody,
        answer=FallbackView,
        refusals=frozenset({404, 409}),
        allowance=ENGINES,
        timeout_s=30.0,
    ),
    Route(
        method="POST",
        path="/api/transcription/stop",
        handler=stop,
        who=Who.USER,
        summary="Stop the transcription through Egress (members of its space)",
        tag="transcription",
        body=StopBody,
        answer=FallbackView,
        refusals=frozenset({404}),
        allowance=ENGINES,
        timeout_s=30.0,
    ),
    Route(
        method="POST",
        path="/api/active-speaker",
        handler=active_speaker,
        who=Who.SEAT,
        summary="Report who speaks now, so that a mixed stream gets its names",
        tag="transcription",
        body=ActiveSpeakers,
        answer=Accepted,
        allowance=REPORTS,
    ),
    Route(
        method="POST",
        path="/api/realtime/transcribe/broadcast",
        handler=broadcast,
        who=Who.SERVICE,
        summary="Send a message to all viewers of a session",
        tag="transcription",
        body=Broadcast,
        answer=Accepted,
        allowance=SERVICES,
        uses_store=False,
    ),
)
