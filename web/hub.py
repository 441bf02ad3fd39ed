"""The fan-out: what comes over the bus goes, encoded once, to every viewer of its session.

The bus loses messages by design, so the hub also reads the store: when a session gets its first
viewer, after each interruption of the bus, and every few seconds. `core.feed` tells what is news.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from uuid import UUID

from core.errors import StoreError
from core.feed import Feed
from core.ids import Slug, UtteranceId
from core.wire import Insight, insights_message, iso, transcript_message
from db import segments
from db.pool import Connection
from db.segments import StoredSegment
from db.sessions import SessionRow
from web.counters import Counters
from web.socket import PING, text_frame
from web.viewer import Reason, Viewer

log = logging.getLogger(__name__)

CATCH_UP_S = 5.0
HEARTBEAT_S = 20.0
SILENT_S = 65.0
"""Seconds without an answer to our pings after which a viewer counts as gone."""
IDLE_FEED_S = 30.0
PAGE = 1000
_LASTING = frozenset({"insights", "status"})
_EVENTS = _LASTING | {"transcription_error"}


Connect = Callable[[], AbstractAsyncContextManager[Connection]]


@dataclass(slots=True)
class Channel:
    """One session that somebody watches, or did a moment ago."""

    slug: Slug
    session_id: UUID
    feed: Feed = field(default_factory=Feed)
    viewers: set[Viewer] = field(default_factory=set)
    latest: dict[str, bytes] = field(default_factory=dict)
    """The newest `insights` and `status` frame, for whoever comes later."""
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the store's lines are here."""
    idle_since: float | None = None


class Hub:
    """All channels of this process. Everything runs in one event loop, without locks."""

    def __init__(self, connection: Connect, counters: Counters) -> None:
        self._connection = connection
        self._counters = counters
        self._channels: dict[Slug, Channel] = {}
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def viewers(self) -> int:
        return sum(len(channel.viewers) for channel in self._channels.values())

    def viewers_of(self, slug: Slug) -> int:
        channel = self._channels.get(slug)
        return 0 if channel is None else len(channel.viewers)

    async def open(
        self, slug: Slug, session_id: UUID, session: SessionRow | None, wait_s: float
    ) -> Channel:
        """The session's channel, with the store's lines if they come within `wait_s`.

        `session` is None while the store is away; what it holds then comes later.
        """
        channel = self._channels.get(slug)
        if channel is None or channel.session_id != session_id:
            channel = Channel(slug, session_id, idle_since=self._loop.time())
            self._channels[slug] = channel
        if session is not None and session.ai_title is not None:
            channel.latest.setdefault("insights", _insights_frame(session))
        if not channel.loaded.is_set():
            self._news.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await channel.loaded.wait()
        return channel

    def attach(self, channel: Channel, viewer: Viewer, after: int) -> None:
        """Sends the backlog and lets the viewer have everything from here on."""
        lines = channel.feed.backlog(after)
        for frame in lines:
            viewer.socket.write(frame)
        for frame in channel.latest.values():
            viewer.socket.write(frame)
        viewer.socket.write(_backlog_frame(channel, len(lines)))
        channel.viewers.add(viewer)
        channel.idle_since = None

    def detach(self, channel: Channel, viewer: Viewer) -> None:
        channel.viewers.discard(viewer)
        if not channel.viewers:
            channel.idle_since = self._loop.time()

    def received(self, slug: str, message: bytes) -> None:
        """Takes a message of ours from the bus, or from a broadcast, and fans it out."""
        channel = self._channels.get(Slug(slug))
        if channel is None:
            return
        try:
            content = json.loads(message)
            self._take(channel, content, message)
        except (ValueError, KeyError, TypeError):
            self._counters.errors.labels("bus_message").inc()
            log.warning("a message on the bus is not one of ours")

    def catch_up(self) -> None:
        """Reads the store soon; called when the bus may have lost something."""
        self._news.set()

    async def run(self) -> None:
        """Keeps the channels complete and the viewers honest until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._catch_up_for_ever(), name="hub:store")
            group.create_task(self._beat_for_ever(), name="hub:heartbeat")

    def _take(self, channel: Channel, content: dict[str, Any], message: bytes) -> None:
        kind = content["type"]
        if kind == "transcript":
            utterance_id = UtteranceId(content["utteranceId"])
            is_final, rev = bool(content["isFinal"]), int(content.get("rev", 0))
            if not channel.feed.is_news(utterance_id, is_final=is_final, rev=rev):
                return
            frame = text_frame(message)
            channel.feed.put(utterance_id, is_final=is_final, rev=rev, frame=frame)
            self._send(channel, utterance_id, frame)
        elif kind in _EVENTS:
            frame = text_frame(message)
            if kind in _LASTING:
                channel.latest[kind] = frame
            self._send(channel, kind, frame)

    def _send(self, channel: Channel, key: str, frame: bytes) -> None:
        began = perf_counter()
        for viewer in channel.viewers:
            viewer.send(key, frame)
        self._counters.sent(len(channel.viewers), perf_counter() - began)

    async def _catch_up_for_ever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP_S):
                    await self._news.wait()
            self._news.clear()
            try:
                if await self._caught_up() >= PAGE:
                    self._news.set()
            except StoreError:
                self._counters.errors.labels("catch_up").inc()
                await asyncio.sleep(0.5)

    async def _caught_up(self) -> int:
        """Reads one page of news for all channels; returns how many rows there were."""
        channels = {channel.session_id: channel for channel in self._channels.values()}
        if not channels:
            return 0
        cursors = {key: channel.feed.cursor for key, channel in channels.items()}
        async with self._connection() as conn:
            living = await segments.living(conn, list(cursors))
            rows = await segments.news(conn, cursors, PAGE)
        full = set()
        for session_id, found in rows.items():
            channel = channels[session_id]
            for row in found:
                self._take_stored(channel, row)
            if len(found) >= PAGE:
                full.add(session_id)
        for session_id, channel in channels.items():
            if session_id not in living:
                self._drop(channel.viewers, "session_deleted")
                self._channels.pop(channel.slug, None)
            elif session_id not in full:
                channel.loaded.set()
        return max((len(found) for found in rows.values()), default=0)

    def _take_stored(self, channel: Channel, row: StoredSegment) -> None:
        segment, feed = row.segment, channel.feed
        utterance_id, is_final, rev = segment.utterance_id, segment.is_final, segment.rev
        if feed.is_news(utterance_id, is_final=is_final, rev=rev):
            frame = text_frame(transcript_message(segment, datetime.now(UTC)))
            feed.put(utterance_id, is_final=is_final, rev=rev, frame=frame)
            self._send(channel, utterance_id, frame)
        feed.stored(utterance_id, is_final=is_final, rev=rev, seq=row.seq)

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S / 4)
            self._sweep()
            await asyncio.sleep(HEARTBEAT_S * 3 / 4)
            self._sweep()
            for channel in self._channels.values():
                beat = PING + text_frame(_beat(channel))
                for viewer in channel.viewers:
                    viewer.send("ping", beat)

    def _sweep(self) -> None:
        now, today = self._loop.time(), datetime.now(UTC).timestamp()
        viewers = self._all_viewers()
        self._drop((v for v in viewers if v.is_late(now)), "too_slow")
        self._drop((v for v in viewers if now - v.socket.heard_at > SILENT_S), "gone")
        self._drop((v for v in viewers if v.expires_at < today), "token_expired")
        for channel in list(self._channels.values()):
            if channel.idle_since is not None and now - channel.idle_since > IDLE_FEED_S:
                del self._channels[channel.slug]

    def _drop(self, viewers: Iterable[Viewer], reason: Reason) -> None:
        for viewer in list(viewers):
            viewer.drop(reason)

    def _all_viewers(self) -> list[Viewer]:
        return [viewer for channel in self._channels.values() for viewer in channel.viewers]


def _insights_frame(session: SessionRow) -> bytes:
    insight = Insight(
        title=session.ai_title or "",
        current_topic=session.ai_current_topic or "",
        topics=session.ai_topics,
    )
    at = session.ai_updated_at or session.created_at
    return text_frame(insights_message(session.slug, insight, at))


def _backlog_frame(channel: Channel, lines: int) -> bytes:
    """Closes the backlog. `complete` is false while the store could not be read."""
    return text_frame(
        _compact(
            {
                "type": "backlog",
                "sessionSlug": channel.slug,
                "lines": lines,
                "complete": channel.loaded.is_set(),
                "nextAfter": channel.feed.cursor,
                "ts": iso(datetime.now(UTC)),
                "v": 1,
            }
        )
    )


def _beat(channel: Channel) -> bytes:
    return _compact(
        {
            "type": "ping",
            "sessionSlug": channel.slug,
            "nextAfter": channel.feed.cursor,
            "ts": iso(datetime.now(UTC)),
            "v": 1,
        }
    )


def _compact(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
