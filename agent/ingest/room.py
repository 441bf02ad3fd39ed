"""One room that the fallback transcribes: its streams, and what all of them share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from agent.clock import SessionClock
from agent.delivery import Delivery, Recorder
from agent.ingest.counters import IngestCounters
from agent.ingest.decoder import Decoder, pull_command
from agent.ingest.egress import Attendee
from agent.ingest.pull import Puller
from agent.ingest.resample import Downsampler
from agent.ingest.stream import (
    MIX_LATENCY_S,
    MIX_NAME,
    TRACK_LATENCY_S,
    MixedVoices,
    Naming,
    OneVoice,
    Stream,
    track_voice,
)
from agent.insights import NewInsight
from agent.lane import Ears
from agent.language_model import ModelSettings
from agent.publisher import BusWriter, Publisher, Sink
from agent.room_insights import RoomInsights
from agent.supervise import contain, supervise
from core.errors import StoreError
from core.gladia.events import AudioLost
from core.ids import Identity, Slug
from core.lines import Gaps, Voice
from core.rtmp import AudioTag
from core.transcript import Segment
from db.pool import DatabaseSettings
from db.records import InsightRecord, Record, SessionRecord

logger = logging.getLogger(__name__)

MIX: Final = "mix"
"""Name of the mixed stream in status messages."""
DRAIN_S: Final = 10.0
DECODE_S: Final = 2.0
PUBLISH_S: Final = 4.0
MIN_ABSENCE_S: Final = 1.0
"""A shorter time without any transcriber is no gap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestContext:
    """What all rooms of this process share."""

    ears: Ears
    recorder: Recorder
    make_sink: Callable[[Slug], Sink]
    bus: BusWriter | None
    decoder: tuple[str, ...]
    ffmpeg: str
    """Path of the binary; empty: the one on PATH."""
    counters: IngestCounters
    model: ModelSettings
    database: DatabaseSettings


class IngestRoom:
    """Runs from the first sound that comes for a room until `drain`.

    `open_publish` and `open_track` may be called any time in between; a source that comes back
    goes on in the stream that it had.
    """

    def __init__(self, slug: Slug, context: IngestContext, *, deaf_since: float | None) -> None:
        """Starts without streams.

        Args:
            slug: the session.
            context: shared parts.
            deaf_since: monotonic seconds since when nobody transcribed the room; what was said
                from then to the first sound is stored as a gap. None: nobody was needed.
        """
        self.slug = slug
        self.mixed = MixedVoices(slug)
        self._context = context
        self._deaf_since = deaf_since
        self._clock = SessionClock.start()
        self._publisher = Publisher(
            sink=context.make_sink(slug),
            slug=slug,
            bus=context.bus,
            clock=self._clock,
            source="rtmp",
        )
        self._delivery = Delivery(
            recorder=context.recorder, lines=self._publisher, on_segment=self._count
        )
        self._insights = RoomInsights(
            slug=slug, model=context.model, database=context.database, on_insight=self._insight
        )
        self._streams: dict[str, Stream] = {}
        self._publishes: set[Publish] = set()
        self._puller: Puller | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._starting: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._drained = asyncio.Event()
        self._cut_at: float | None = None

    @property
    def heard(self) -> dict[str | None, float]:
        """When sound came last, in monotonic seconds: by track SID, None for the mix."""
        return {
            None if name == MIX else name: stream.heard_at
            for name, stream in self._streams.items()
            if stream.heard_at is not None
        }

    @property
    def last_heard_at(self) -> float | None:
        return max(self.heard.values(), default=None)

    def attend(self, people: tuple[Attendee, ...]) -> None:
        """Takes the room's list of participants, for names."""
        self.mixed.people.update({person.identity: person for person in people})

    def report(self, identity: str, *, speaking: bool) -> None:
        """A browser says that its user speaks, or not."""
        self.mixed.attributor.speaking.report(identity, speaking=speaking, now=monotonic())

    def open_publish(self) -> "Publish":
        """A sink for one publish of the mix."""
        stream = self._stream(MIX, self.mixed, MIX_LATENCY_S)
        stream.interrupt()
        publish = Publish(self, stream, self._context)
        self._publishes.add(publish)
        self._start(f"decoder:{self.slug}", publish.run)
        return publish

    def open_pull(self, url: str) -> None:
        """Pulls the mix from an external server until `drain`; again does nothing."""
        if self._puller is not None:
            return
        stream = self._stream(MIX, self.mixed, MIX_LATENCY_S)
        self._puller = Puller(
            pull_command(url, self._context.ffmpeg),
            on_pcm=lambda pcm: self._pulled(stream, pcm),
            on_gone=stream.interrupt,
            on_error=self._context.counters.decoder_fault,
        )
        self._start(f"pull:{self.slug}", self._puller.run)

    def _pulled(self, stream: Stream, pcm: bytes) -> None:
        first = stream.heard_at is None
        stream.push(pcm)
        if first:
            self.arrived(stream)

    def open_track(self, track_sid: str) -> "TrackFeed":
        """A sink for the audio of one track; its owner is found in the last list of people."""
        owner = next((one for one in self.mixed.people.values() if track_sid in one.tracks), None)
        person = owner or Attendee(Identity(""), MIX_NAME, None, frozenset())
        naming = OneVoice(track_voice(self.slug, track_sid, person))
        stream = self._stream(track_sid, naming, TRACK_LATENCY_S)
        stream.interrupt()
        return TrackFeed(self, stream)

    def cut(self, at: float) -> None:
        """A bot transcribes from `at` on, in monotonic seconds: later sound is not ours."""
        if self._cut_at is None:
            self._cut_at = at
            for stream in self._streams.values():
                stream.cut(at)

    async def run(self) -> None:
        """Transcribes until `drain`."""
        self._put(SessionRecord(slug=self.slug, room_sid=None, started_at=datetime.now(UTC)))
        self._publisher.room_state("live")
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            publishing = tasks.create_task(
                supervise("publisher", self._publisher.run), name=f"publisher:{self.slug}"
            )
            thinking = tasks.create_task(
                supervise("insights", self._insights.run), name=f"insights:{self.slug}"
            )
            for name, job in self._starting:
                tasks.create_task(contain(name, job), name=name)
            await self._drained.wait()
            publishing.cancel()
            thinking.cancel()
        self._tasks = None

    async def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Ends every stream, waits for their last finals, and publishes what waits."""
        for publish in tuple(self._publishes):
            publish.end(clean=True)
        if self._puller is not None:
            self._puller.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(DECODE_S):
                for publish in tuple(self._publishes):
                    await publish.decoded.wait()
        async with asyncio.TaskGroup() as draining:
            for name, stream in self._streams.items():
                draining.create_task(stream.drain(timeout_s), name=f"drain:{name}")
        self._publisher.room_state("off")
        await self._publisher.drain(PUBLISH_S)
        self._drained.set()

    def arrived(self, stream: Stream) -> None:
        """First sound of a stream: ends the time in which nobody heard the room."""
        if self._deaf_since is None:
            return
        since, self._deaf_since = self._deaf_since, None
        until = stream.captured_until
        if until - since < MIN_ABSENCE_S:
            return
        ends = (self._clock.utc(since), self._clock.utc(until))
        voice = Voice(slug=self.slug, identity=Identity(""), name=MIX_NAME, source="rtmp")
        gap = Gaps(f"absent-{int(ends[0].timestamp() * 1000)}").gap(
            AudioLost(0, 1, "no_transcriber"), voice, ends.__getitem__
        )
        self._delivery.deliver(gap)

    def closed(self, publish: "Publish") -> None:
        """A publish is decoded to its end."""
        self._publishes.discard(publish)

    def _stream(self, name: str, naming: Naming, latency_s: float) -> Stream:
        self._publisher.source("rtmp" if name == MIX else "track")
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(
                name=name,
                naming=naming,
                latency_s=latency_s,
                clock=self._clock,
                ears=self._context.ears,
                delivery=self._delivery,
                statuses=self._publisher,
                metadata={"session": self.slug},
            )
            if self._cut_at is not None:
                stream.cut(self._cut_at)
            label = f"lane:{self.slug}:{name}"
            self._start(label, lambda: supervise(label, stream.run))
        return stream

    def _start(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        if self._tasks is None:
            self._starting.append((name, job))
        else:
            self._tasks.create_task(contain(name, job), name=name)

    def _count(self, segment: Segment) -> None:
        if segment.is_final:
            self._context.counters.finals += 1
        self._insights.offer(segment)

    def _insight(self, new: NewInsight) -> None:
        record = InsightRecord(
            slug=self.slug,
            insight=new.insight,
            at=new.at,
            rev=new.rev,
            model=new.model,
            prompt_tokens=new.prompt_tokens,
            completion_tokens=new.completion_tokens,
        )
        self._put(record)
        self._publisher.insights(new.insight)

    def _put(self, record: Record) -> None:
        try:
            self._context.recorder.put(record)
        except StoreError:
            logger.exception("a fact about the room could not be kept")


class Publish:
    """One RTMP publish: its decoder and the stream that it feeds. The acceptor's sink."""

    def __init__(self, room: IngestRoom, stream: Stream, context: IngestContext) -> None:
        self._room = room
        self._stream = stream
        self._next = 0
        self._counters = context.counters
        self._decoder = Decoder(context.decoder, self._pcm, context.counters.decoder_fault)
        self._ended = False
        self.decoded = asyncio.Event()
        """Set when everything came out."""

    def feed(self, tag: AudioTag) -> None:
        self._decoder.feed(tag)

    async def ready(self) -> None:
        await self._decoder.ready()

    def end(self, *, clean: bool) -> None:
        del clean  # a publisher that comes back within the grace goes on in the same stream
        if not self._ended:
            self._ended = True
            self._decoder.finish()

    async def run(self) -> None:
        """Decodes to the end of the publish."""
        try:
            await self._decoder.run()
        finally:
            self._room.closed(self)
            self._stream.interrupt()
            self.decoded.set()

    def _pcm(self, position: int, pcm: bytes) -> None:
        missing, self._next = position - self._next, position + len(pcm) // 2
        self._counters.pcm_samples += len(pcm) // 2
        first = self._stream.heard_at is None
        self._stream.push(pcm, missing=missing)
        if first:
            self._room.arrived(self._stream)


class TrackFeed:
    """The audio of one Track Egress connection: 48 kHz stereo in."""

    def __init__(self, room: IngestRoom, stream: Stream) -> None:
        self._room = room
        self._stream = stream
        self._downsampler = Downsampler()

    def feed(self, pcm: bytes) -> None:
        """Takes s16le 48 kHz stereo of any length; never blocks."""
        mono = self._downsampler.push(pcm)
        if not mono:
            return
        first = self._stream.heard_at is None
        self._stream.push(mono)
        if first:
            self._room.arrived(self._stream)

    def end(self) -> None:
        self._stream.interrupt()
