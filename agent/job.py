"""What runs in a job's process: one room, wired from its parts.

LiveKit's framework calls `prewarm` when the process starts, `entry` when a room is given to it and
`finish` while the room is still connected at the end. All three are found by name, in another
process than the worker's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp
from livekit.agents import AutoSubscribe, JobContext, JobExecutorType, JobProcess
from livekit.agents.voice.agent_session import RecordingOptions

from agent.bus_relay import RelaySender, open_relay_sender
from agent.clock import SessionClock
from agent.delivery import Delivery
from agent.gladia.live import GladiaAccount
from agent.gladia.slots import SessionSlots
from agent.heard import MARK_EVERY_S, HeardMark, latest, missed
from agent.insights import NewInsight
from agent.journal import Journal
from agent.lane import Ears
from agent.metrics import Meter
from agent.missed import Missed
from agent.people import Person
from agent.publisher import Publisher
from agent.room import LiveRoom
from agent.room_events import RoomEvents
from agent.room_insights import RoomInsights
from agent.room_sink import RoomSink
from agent.settings import Settings
from agent.speaker import Speaker, SpeakerContext
from agent.subscriptions import HEARD_ATTRIBUTE, Policy
from agent.vad import make_vad
from core.errors import StoreError
from core.gladia.languages import LANGUAGES_ATTRIBUTE, languages_of
from core.gladia.options import GladiaOptions
from core.hole import FIRST_FRAME, missed_since
from core.ids import Slug
from core.transcript import Segment
from core.wire import RoomState
from db.records import InsightRecord

logger = logging.getLogger(__name__)

LAST_WORDS_S: Final = 10.0
"""For the speakers' last finals, of the 25 s that the framework gives `finish`."""
PUBLISH_S: Final = 4.0
_FINISH_S: Final = 22.0
_REPORT_EVERY_S: Final = 2.0
_SOCKETS: Final = 1000
"""Gladia WebSockets per room; aiohttp's default of 100 would cap a large one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What the worker tells its job processes."""

    settings: Settings
    relay: Path


class RoomJob:
    """One job from its connection to its end."""

    def __init__(self, ctx: JobContext, boot: Boot) -> None:
        self._ctx = ctx
        self._settings = boot.settings
        self._relay_path = boot.relay
        self._events = RoomEvents(ctx.room)
        self._room: LiveRoom | None = None
        self._task: asyncio.Task[None] | None = None
        self._clock = SessionClock.start()
        self._slug = Slug(ctx.job.room.name)
        self._meter = Meter()
        self._mark = HeardMark(boot.settings.heard_dir, self._slug)

    async def start(self) -> None:
        """Connects, and returns once the room runs in a task of its own."""
        await self._ctx.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
        # The framework ends `entry` before it calls `finish`, so the room needs a task that
        # outlives `entry`; `finish` owns it.
        self._task = asyncio.create_task(self._run(), name="room")  # noqa: TID251 - see above
        self._task.add_done_callback(self._ended)

    async def finish(self) -> None:
        """Ends the room in order; returns when all is said, or after 22 s."""
        if self._task is None:
            return
        if self._room is not None:
            self._room.stop(LAST_WORDS_S)
        await asyncio.wait([self._task], timeout=_FINISH_S)
        if not self._task.done():
            logger.error("room did not end in time")
            self._task.cancel()

    async def _run(self) -> None:
        async with self._parts() as room:
            self._room = room
            await room.run()

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[LiveRoom]:
        settings = self._settings
        journal = Journal(settings.journal_path)
        try:
            connector = aiohttp.TCPConnector(limit=_SOCKETS)
            async with (
                open_relay_sender(self._relay_path) as relay,
                aiohttp.ClientSession(connector=connector) as http,
            ):
                yield self._wired(journal, relay, http)
                relay.metrics(self._meter.take())
        finally:
            self._mark.leave()
            journal.close()

    def _wired(self, journal: Journal, relay: RelaySender, http: aiohttp.ClientSession) -> LiveRoom:
        settings = self._settings
        publisher = Publisher(
            sink=RoomSink(self._ctx.room), slug=self._slug, bus=relay, clock=self._clock
        )
        insights = RoomInsights(
            slug=self._slug,
            model=settings.model,
            database=settings.database,
            on_insight=lambda new: self._insight(new, journal, publisher),
        )

        def on_segment(segment: Segment) -> None:
            insights.offer(segment)
            count_segment(self._meter, segment, self._clock.now())

        def on_state(state: RoomState) -> None:
            publisher.room_state(state)
            self._meter.add("bot_state_changes", label=state)

        delivery = Delivery(recorder=journal, lines=publisher, on_segment=on_segment)
        context = SpeakerContext(
            slug=self._slug,
            clock=self._clock,
            ears=Ears(
                account=GladiaAccount(
                    api_key=settings.gladia_api_key, base_url=settings.gladia_api_url, http=http
                ),
                slots=SessionSlots(settings.slots_dir, settings.gladia_max_sessions),
                options=settings.gladia,
                make_vad=make_vad(settings.vad_backend),
            ),
            delivery=delivery,
            statuses=publisher,
            on_usage=lambda audio_s: self._meter.add("audio_seconds_billed", audio_s),
            on_fault=lambda kind: self._meter.add("gladia_faults", label=kind),
            on_deaf=lambda: self._meter.add("deaf_alarms"),
        )

        def make_speaker(person: Person) -> Speaker:
            return Speaker(
                identity=person.identity,
                name=person.name,
                user_id=person.user_id,
                context=replace(context, ears=replace(context.ears, options=self._options())),
            )

        return LiveRoom(
            room=self._ctx.room,
            events=self._events,
            slug=self._slug,
            policy=Policy(screen_share_audio=settings.screen_share_audio),
            recorder=journal,
            make_speaker=make_speaker,
            parts={
                "publisher": publisher.run,
                "insights": insights.run,
                "heard": lambda: self._mark_heard(relay),
                "report": lambda: self._report(relay, insights, publisher, delivery),
            },
            on_state=on_state,
            flush=lambda: publisher.drain(PUBLISH_S),
            on_over=lambda reason: self._over(reason, relay),
            missed=self._missed(delivery),
        )

    def _missed(self, delivery: Delivery) -> Missed:
        bot = self._ctx.room.local_participant
        mark = self._mark.take(bot.identity, self._clock.started_at)
        attributes = bot.attributes
        heard_until = latest(mark.until if mark else None, attributes.get(HEARD_ATTRIBUTE, ""))

        def since(joined_at: datetime) -> datetime | None:
            return missed_since(heard_until, joined_at, self._clock.started_at)

        def report(person: Person, since: datetime) -> None:
            until = person.left_at or self._clock.now() + FIRST_FRAME
            if since < until:
                delivery.deliver(missed(person, self._slug, since, until))

        return Missed(since, report, mark.people if mark else ())

    def _options(self) -> GladiaOptions:
        """Of whoever is heard from now on: the session's languages come before ours."""
        attributes = self._ctx.room.local_participant.attributes
        languages = languages_of(attributes.get(LANGUAGES_ATTRIBUTE, ""))
        ours = self._settings.gladia
        return replace(ours, languages=languages) if languages else ours

    async def _mark_heard(self, relay: RelaySender) -> None:
        """While somebody is not being transcribed the mark stays where it is."""
        while True:
            if self._room is not None and (until := self._room.heard_until(self._clock.now())):
                self._mark.write(until, self._room.heard)
                relay.heard(self._ctx.job.id, until)
            await asyncio.sleep(MARK_EVERY_S)

    async def _report(
        self,
        relay: RelaySender,
        insights: RoomInsights,
        publisher: Publisher,
        delivery: Delivery,
    ) -> None:
        while True:
            publisher.insights_state(insights.state)
            await asyncio.sleep(_REPORT_EVERY_S)
            self._meter.follow("published", publisher.counts.published)
            self._meter.follow("publish_failures", publisher.counts.failed)
            self._meter.follow("finals_not_published", publisher.counts.finals_lost)
            self._meter.follow("finals_not_stored", delivery.not_stored)
            self._meter.follow("relay_dropped", relay.dropped)
            for name, total in insights.totals().items():
                self._meter.follow(name, total)
            if sums := self._meter.take():
                relay.metrics(sums)

    def _insight(self, new: NewInsight, journal: Journal, publisher: Publisher) -> None:
        record = InsightRecord(
            slug=self._slug,
            insight=new.insight,
            at=new.at,
            rev=new.rev,
            model=new.model,
            prompt_tokens=new.prompt_tokens,
            completion_tokens=new.completion_tokens,
        )
        try:
            journal.put(record)
        except StoreError:
            logger.exception("an insight could not be kept")
        publisher.insights(new.insight)

    def _over(self, reason: str, relay: RelaySender) -> None:
        """The room is over for this bot: somebody else may have it from now on."""
        logger.info("room is over", extra={"reason": reason})
        self._mark.leave()
        relay.left(self._ctx.job.id)
        self._ctx.shutdown(reason)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A room that fails ends its job, so that the steward sends another one."""
        if task.cancelled() or task.exception() is None:
            return
        logger.error("room failed", exc_info=task.exception())
        self._ctx.shutdown("failed")


def count_segment(meter: Meter, segment: Segment, now: datetime) -> None:
    """Counts a segment; a final with its latency, a gap with its length."""
    if segment.kind == "gap":
        meter.add("segments", label="gap")
        lost_s = (segment.ended_at - segment.started_at).total_seconds()
        meter.add("audio_seconds_lost", lost_s, label=segment.reason or "unknown")
    elif segment.is_final:
        meter.add("segments", label="final")
        meter.add("stt_latency_seconds", max((now - segment.ended_at).total_seconds(), 0.0))
        meter.add("stt_latency_count")
    else:
        meter.add("segments", label="interim")


JOB: Final = "roomscribe.job"
BOOT: Final = "roomscribe.boot"


def prewarm(boot: Boot, process: JobProcess) -> None:
    """Called in each job process before it gets a room."""
    if process.executor_type is JobExecutorType.PROCESS:
        from agent import job_process  # noqa: F401 - no-op where the forkserver imported it
    process.userdata[BOOT] = boot
    make_vad(boot.settings.vad_backend)


async def entry(ctx: JobContext) -> None:
    """Called with the room; returns as soon as the room runs."""
    ctx.init_recording(RecordingOptions(audio=False, traces=False, logs=False, transcript=False))
    ctx.log_context_fields = {"room": ctx.job.room.name, "job_id": ctx.job.id}
    job = RoomJob(ctx, ctx.proc.userdata[BOOT])
    ctx.proc.userdata[JOB] = job
    await job.start()


async def finish(ctx: JobContext) -> None:
    """Called at the end, connected unless LiveKit ended the room."""
    job = ctx.proc.userdata.pop(JOB, None)
    if job is not None:
        await job.finish()
