"""The one writer into a room: lines, insights and status, in order, at a bearable pace.

Everything else hands values over without waiting. Which line goes next is decided by
`core.pacing`; how it is sent is the sink's business.
"""

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Final, Protocol

from core.errors import ProviderError
from core.ids import Slug
from core.pacing import Pacer
from core.status import StatusBoard
from core.transcript import Segment, Source
from core.wire import (
    INSIGHTS_TOPIC,
    STATUS_TOPIC,
    TRANSCRIPT_TOPIC,
    Insight,
    InsightsState,
    RoomState,
    SpeakerStatus,
    insights_message,
    transcript_message,
)

logger = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 6.0
"""A publication that takes longer failed. While the bot resumes its connection they block for
about 3 s and then succeed."""
FINAL_TRIES: Final = 5
RETRY_S: Final = 0.5


class Sink(Protocol):
    """Where messages go: a room that the bot is in, or one that it reaches by the server API.

    Both methods raise ProviderError when the message was not taken.
    """

    async def send(self, topic: str, payload: bytes) -> None:
        """Sends a message on a data topic, reliably."""
        ...

    async def caption(self, segment: Segment) -> None:
        """Sends a line in LiveKit's own caption format."""
        ...


class BusWriter(Protocol):
    """Towards viewers outside the room. Never blocks, never raises; lossy by design."""

    def publish(self, slug: str, payload: bytes, /) -> None: ...


class Clock(Protocol):
    def now(self) -> datetime: ...


@dataclass(slots=True)
class PublisherCounts:
    """For the metrics; grows only."""

    published: int = 0
    failed: int = 0
    """Messages that the room did not take, each try."""
    finals_lost: int = 0
    """Finals that the room did not take after all tries; they are stored all the same."""


class Publisher:
    """Everything that a room is told. Use it in the loop's thread.

    Finals leave first and in order; an interim leaves at most every 250 ms per speaker, in its
    newest version. `core.pacing.MAX_FINALS` finals may wait; see there what happens beyond.
    """

    def __init__(
        self,
        *,
        sink: Sink,
        slug: Slug,
        bus: BusWriter | None,
        clock: Clock,
        source: Source = "agent",
    ) -> None:
        self._sink = sink
        self._slug = slug
        self._bus = bus
        self._clock = clock
        self._pacer = Pacer()
        self._board = StatusBoard()
        self._board.source(source)
        self._insight: Insight | None = None
        self._tries = 0
        """Of the final at the head of the queue."""
        self._wake = asyncio.Event()
        self._closing = False
        self._done = asyncio.Event()
        self.counts = PublisherCounts()

    @property
    def finals_waiting(self) -> int:
        return self._pacer.finals_waiting

    @property
    def finals_overflowed(self) -> int:
        return self._pacer.counts.overflowed

    def transcript(self, segment: Segment) -> None:
        """Takes a version of a line. A final must be in the journal already."""
        self._pacer.offer(segment)
        self._wake.set()

    def insights(self, insight: Insight) -> None:
        """Takes the newest insight; one that was not sent yet is replaced."""
        self._insight = insight
        self._wake.set()

    def insights_state(self, state: InsightsState) -> None:
        self._board.insights(state)
        self._wake.set()

    def room_state(self, state: RoomState) -> None:
        self._board.room(state)
        self._wake.set()

    def source(self, source: Source) -> None:
        """The room's audio comes to us another way from now on."""
        self._board.source(source)
        self._wake.set()

    def speaker_state(self, status: SpeakerStatus) -> None:
        self._board.speaker(status)
        self._wake.set()

    def forget_speaker(self, identity: str) -> None:
        """This speaker left for good."""
        self._board.forget(identity)
        self._wake.set()

    async def run(self) -> None:
        """Publishes until `drain`; may be started again after a failure."""
        while not (self._closing and self._pacer.is_empty and self._insight is None):
            await self._until_due()
            await self._publish_due()
        self._done.set()

    async def drain(self, timeout_s: float) -> None:
        """Sends what waits, without interims, and ends `run`; gives up after `timeout_s`."""
        self._closing = True
        self._pacer.drop_interims()
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._done.wait()
        except TimeoutError:
            logger.warning(
                "lines were not published before the end",
                extra={"finals": self._pacer.finals_waiting},
            )

    async def _until_due(self) -> None:
        deadlines = (self._board.deadline(), self._pacer.deadline())
        due = min(deadline for deadline in deadlines if deadline is not None)
        delay_s = due - monotonic()
        if delay_s <= 0 or self._wake.is_set():
            self._wake.clear()
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(delay_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        self._wake.clear()

    async def _publish_due(self) -> None:
        if self._insight is not None:
            insight, self._insight = self._insight, None
            message = insights_message(self._slug, insight, self._clock.now())
            await self._message(INSIGHTS_TOPIC, message)
        if monotonic() >= self._board.deadline():
            message = self._board.message(self._slug, self._clock.now(), monotonic())
            await self._message(STATUS_TOPIC, message)
        while (segment := self._pacer.take(monotonic())) is not None:
            await self._line(segment)

    async def _message(self, topic: str, payload: bytes) -> None:
        self._to_bus(payload)
        await self._attempt(self._sink.send(topic, payload))

    async def _line(self, segment: Segment) -> None:
        payload = transcript_message(segment, self._clock.now())
        if self._tries == 0:
            self._to_bus(payload)
        sent = await self._attempt(self._sink.send(TRANSCRIPT_TOPIC, payload))
        if not sent and segment.is_final:
            await self._again(segment)
            return
        self._tries = 0
        if sent and segment.kind == "speech":
            await self._attempt(self._sink.caption(segment))

    async def _again(self, final: Segment) -> None:
        self._tries += 1
        if self._tries >= FINAL_TRIES:
            self._tries = 0
            self.counts.finals_lost += 1
            return
        self._pacer.give_back(final)
        await asyncio.sleep(RETRY_S)

    async def _attempt(self, sending: Awaitable[None]) -> bool:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await sending
        except (ProviderError, TimeoutError) as exc:
            self.counts.failed += 1
            logger.warning("the room did not take a message", extra={"error": type(exc).__name__})
            return False
        self.counts.published += 1
        return True

    def _to_bus(self, payload: bytes) -> None:
        if self._bus is not None:
            self._bus.publish(self._slug, payload)
