"""The RTMP port: sockets, deadlines and the register of publishers around core.rtmp.

Never decodes and never decides who may publish: it asks `Gate.authorize` before any media is
read, and hands audio tags to the sink that `Gate.open` returns.
"""

import asyncio
import logging
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Protocol, assert_never
from urllib.parse import parse_qs

from agent.supervise import contain
from core.rtmp import (
    AudioTag,
    Close,
    Command,
    Event,
    Ignored,
    Limits,
    PauseReading,
    PublishEnded,
    PublishRequested,
    ResumeReading,
    Send,
    Session,
    State,
)

logger = logging.getLogger(__name__)

APP = "session"
"""First part of the path that publishers use: rtmp://host:port/session/{slug}?token=..."""
_READ_BYTES = 16 * 1024
_MAX_UNREAD_BYTES = 64 * 1024
_CLOSE_S = 1.0
_REFUSAL = "publishing to this stream is not allowed"


class PublishSink(Protocol):
    """Where the audio of one publish goes."""

    def feed(self, tag: AudioTag) -> None:
        """Takes one tag; must not block."""

    async def ready(self) -> None:
        """Returns when more may be fed; until then the socket is not read."""

    def end(self, *, clean: bool) -> None:
        """The last call: the publisher said goodbye (`clean`), or is gone and may come back."""


class Gate(Protocol):
    """Who may publish, and where it goes."""

    async def authorize(self, slug: str, token: str) -> bool:
        """Whether the token opens the session's stream now."""

    def open(self, slug: str) -> PublishSink:
        """A sink for an authorised publish; the one before it was ended."""


class AcceptorCounters:
    """What the port did so far; read by the metrics."""

    def __init__(self) -> None:
        self.closed: Counter[str] = Counter()
        """Ended connections by reason: done, lost, refused, protocol, slow, idle, crowded..."""
        self.ignored: Counter[str] = Counter()
        """Media that was not decoded, by kind."""
        self.publishes = 0
        """Publishes that were let in."""
        self.received_bytes = 0


class Acceptor:
    """One RTMP port. Run by `serving`; `evict` and `publishing` may be called meanwhile."""

    def __init__(
        self,
        gate: Gate,
        *,
        limits: Limits | None = None,
        max_strangers: int = 512,
        max_strangers_per_host: int = 128,
    ) -> None:
        """Opens nothing yet.

        Args:
            gate: decides and takes the audio.
            limits: bounds of one connection.
            max_strangers: connections that have not been authorised, all together.
            max_strangers_per_host: of one address. All of them share one behind a TCP proxy.
        """
        self.gate = gate
        self.limits = limits or Limits()
        self.counters = AcceptorCounters()
        self._max_strangers = max_strangers
        self._max_strangers_per_host = max_strangers_per_host
        self._strangers: Counter[str] = Counter()
        self._publishers: dict[str, _Connection] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(
        self, host: str | None, port: int, *, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[int]:
        """Accepts publishers for the block; yields the port, of use when `port` was 0.

        At the end all connections are closed; their sinks are told that they are not clean, so
        that a publisher who returns to our successor goes on.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            server = await asyncio.start_server(
                self._accept,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=self.limits.publish_s if tls else None,
                limit=_READ_BYTES,
            )
            try:
                yield server.sockets[0].getsockname()[1]
            finally:
                server.close()
                self._tasks = None
                for task in list(self._running):
                    task.cancel()

    def publishing(self, slug: str) -> bool:
        """Whether somebody publishes this session's stream now."""
        return slug in self._publishers

    def evict(self, slug: str, reason: str) -> None:
        """Ends the session's publish, if there is one: its key was revoked."""
        if slug in self._publishers:
            self._publishers[slug].evict(reason)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = _peer_host(writer)
        crowded = (
            self._strangers.total() >= self._max_strangers
            or self._strangers[host] >= self._max_strangers_per_host
        )
        if crowded or self._tasks is None:
            self.counters.closed["crowded"] += 1
            writer.transport.abort()
            return
        connection = _Connection(self, reader, writer, host)
        task = self._tasks.create_task(
            contain("rtmp connection", connection.run), name=f"rtmp:{id(connection):x}"
        )
        connection.task = task
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def greet(self, host: str) -> None:
        """A stranger came."""
        self._strangers[host] += 1

    def settle(self, host: str) -> None:
        """A stranger was let in, or left."""
        self._strangers[host] -= 1
        if not self._strangers[host]:
            del self._strangers[host]

    async def claim(self, slug: str, connection: "_Connection") -> bool:
        """Makes `connection` the session's publisher; a living one keeps its place."""
        present = self._publishers.get(slug)
        if present is not None:
            if monotonic() - present.session.last_data_at < self.limits.takeover_s:
                return False
            present.evict("takeover")
        self._publishers[slug] = connection
        if present is not None and present.task is not None:
            await asyncio.wait([present.task])
        return True

    def release(self, slug: str, connection: "_Connection") -> None:
        """Ends a claim; no-op where somebody else took it over."""
        if self._publishers.get(slug) is connection:
            del self._publishers[slug]


class _Connection:
    """One socket: feeds the session, runs its commands, hands its events on."""

    def __init__(
        self,
        acceptor: Acceptor,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
    ) -> None:
        self._acceptor = acceptor
        self._reader = reader
        self._writer = writer
        self._host = host
        self._slug = ""
        self._is_stranger = True
        self._sink: PublishSink | None = None
        self._reason = "lost"
        self.task: asyncio.Task[None] | None = None
        self.session = Session(os.urandom(1528), monotonic(), acceptor.limits)

    async def run(self) -> None:
        self._acceptor.greet(self._host)
        try:
            while self.session.state is not State.CLOSED:
                await self._step()
                await self._act()
        finally:
            self.session.connection_lost()
            self._finish()
        await self._flush()

    def evict(self, reason: str) -> None:
        """Ends this connection from outside."""
        self._reason = reason
        self.session.close(reason)
        self._writer.transport.abort()
        if self.task is not None:
            self.task.cancel()

    async def _step(self) -> None:
        deadline = self.session.deadline()
        wait_s = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            async with asyncio.timeout(wait_s):
                if self.session.state is State.REFUSED:
                    await asyncio.sleep(self._acceptor.limits.reject_hold_s + 1)
                data = await self._reader.read(_READ_BYTES)
        except TimeoutError:
            self.session.handle_deadline(monotonic())
        except OSError:
            self.session.connection_lost()
        else:
            self._acceptor.counters.received_bytes += len(data)
            if data:
                self.session.receive(data, monotonic())
            else:
                self.session.connection_lost()

    async def _act(self) -> None:
        """Runs what the session wants until it wants nothing."""
        while (commands := self.session.commands()) or (events := self.session.events()):
            for command in commands:
                self._run(command)
            if commands:
                continue
            for event in events:
                await self._handle(event)
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self.session.close("unread")
        if self._sink is not None:
            await self._sink.ready()
        # One stranger who sends without a pause must not keep the others from their turn.
        await asyncio.sleep(0)

    def _run(self, command: Command) -> None:
        match command:
            case Send(data):
                self._writer.write(data)
            case PauseReading() | ResumeReading():
                pass  # this task is the reader, and it waits while it asks
            case Close(reason, detail):
                self._reason = reason
                logger.debug("publisher closed", extra={"reason": reason, "detail": detail})
            case _:
                assert_never(command)

    async def _handle(self, event: Event) -> None:
        match event:
            case AudioTag():
                if self._sink is not None:
                    self._sink.feed(event)
            case PublishRequested(app, name):
                await self._answer(app, name)
            case Ignored(kind, count):
                self._acceptor.counters.ignored[kind] += count
            case PublishEnded(clean):
                self._end_sink(clean=clean)
            case _:
                assert_never(event)

    async def _answer(self, app: str, name: str) -> None:
        """Lets the publisher in, or not; a slow answer is a no."""
        slug, _, query = name.partition("?")
        token = parse_qs(query, max_num_fields=8).get("token", [""])[0]
        allowed = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._acceptor.limits.publish_s):
                if app == APP and await self._acceptor.gate.authorize(slug, token):
                    self._slug = slug
                    allowed = await self._acceptor.claim(slug, self)
        if not allowed:
            self.session.reject_publish(_REFUSAL, monotonic())
            return
        self._settle()
        self._acceptor.counters.publishes += 1
        self._sink = self._acceptor.gate.open(slug)
        self.session.accept_publish(monotonic())
        logger.info("publisher let in", extra={"room": slug})

    def _end_sink(self, *, clean: bool) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.end(clean=clean)

    def _finish(self) -> None:
        """Gives everything back; runs once, cancelled or not, and never waits."""
        for event in self.session.events():
            if isinstance(event, AudioTag) and self._sink is not None:
                self._sink.feed(event)
            elif isinstance(event, PublishEnded):
                self._end_sink(clean=event.clean)
        self._end_sink(clean=False)
        self._acceptor.release(self._slug, self)
        self._settle()
        logger.info("publisher gone", extra={"room": self._slug, "reason": self._reason})
        self._acceptor.counters.closed[self._reason] += 1
        self._writer.close()

    def _settle(self) -> None:
        if self._is_stranger:
            self._is_stranger = False
            self._acceptor.settle(self._host)

    async def _flush(self) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()
                return
        self._writer.transport.abort()


def _peer_host(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else ""
