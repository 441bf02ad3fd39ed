"""Carries messages between processes, fast and lossy; what must not be lost is in PostgreSQL.

Whoever reads catches up with `seq > last` after an interruption, which `subscribe` reports.
"""

import asyncio
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic

from redis import asyncio as aioredis
from redis.exceptions import RedisError

from core.errors import StoreError, StoreUnavailable
from core.retry import Backoff
from db.errors import translated
from db.pool import Database, Direct

CHANNEL = "roomscribe"
_MAX_PAYLOAD_BYTES = 7000
"""PostgreSQL takes 7,999 bytes; the rest is for our header."""
_CONTINUATION = 0x80
"""The two high bits of a UTF-8 byte that continues a character."""
_MAX_QUEUED = 2000
_MAX_BATCH = 100
_GATHER_S = 0.01
_HEARTBEAT_S = 15.0
_ANSWER_S = 5.0
_STALLED_S = 1.0
_BACKOFF = Backoff(first_s=0.2, max_s=5.0)
_REDIS_AWAY = (RedisError, OSError, StoreUnavailable)
_SEPARATOR = "\x1f"
_FIELDS = 4
_log = logging.getLogger(__name__)

Message = tuple[str, bytes]
"""A session's slug, and a message about it in UTF-8."""
Received = Callable[[str, bytes], None]
Interrupted = Callable[[], None]


class Bus(ABC):
    """Tells every subscriber in every process what was published, at most once, maybe never."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Received, Interrupted]] = []
        self.dropped = 0
        """Messages that were given up because the queue was full."""

    @abstractmethod
    async def publish(self, messages: Sequence[Message]) -> None:
        """Never waits and never fails: while the way is blocked, the oldest messages go."""

    @property
    def is_flowing(self) -> bool:
        """Whether messages get through now."""
        return True

    def take_back(self) -> list[Message]:
        """What waits to be carried, for whoever has another way; it is not carried then."""
        return []

    @abstractmethod
    async def run(self) -> None:
        """Carries messages until it is cancelled; reconnects for ever."""

    @contextlib.contextmanager
    def subscribe(self, received: Received, interrupted: Interrupted) -> Iterator[None]:
        """Has `received` called for each message, ours included, in the event loop.

        `interrupted` is called when messages may have been missed, once receiving works again.
        """
        entry = (received, interrupted)
        self._subscribers.append(entry)
        try:
            yield
        finally:
            self._subscribers.remove(entry)

    def _deliver(self, slug: str, message: bytes) -> None:
        for received, _ in list(self._subscribers):
            received(slug, message)

    def _resumed(self) -> None:
        for _, interrupted in list(self._subscribers):
            interrupted()


class MemoryBus(Bus):
    """For one process that is worker and web at once."""

    async def publish(self, messages: Sequence[Message]) -> None:
        for slug, message in messages:
            self._deliver(slug, message)

    async def run(self) -> None:
        await asyncio.Event().wait()


class _QueuedBus(Bus):
    """Queues what is published, and sends it in batches over a connection that may break."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[Message] = deque()
        self._waiting = asyncio.Event()
        self._batch: list[Message] = []
        """Being sent, or not known to have arrived."""
        self._sending_since: float | None = None
        self.is_connected = False

    @property
    def is_flowing(self) -> bool:
        """Whether messages get through: connected, and no batch waits for a second."""
        since = self._sending_since
        return self.is_connected and (since is None or monotonic() - since < _STALLED_S)

    def take_back(self) -> list[Message]:
        """What was not carried yet, for another way; a part of it may have arrived after all."""
        taken = [*self._batch, *self._queue]
        self._batch = []
        self._queue.clear()
        return taken

    async def publish(self, messages: Sequence[Message]) -> None:
        self._queue.extend(messages)
        while len(self._queue) > _MAX_QUEUED:
            self._queue.popleft()
            self.dropped += 1
        if self._queue:
            self._waiting.set()

    async def run(self) -> None:
        attempt = 0
        while True:
            try:
                await self._carry()
            except StoreError as exc:
                attempt = 1 if self.is_connected else attempt + 1
                if attempt == 1:
                    _log.warning("bus is disconnected", extra={"error": str(exc)})
            finally:
                self.is_connected = False
            await asyncio.sleep(_BACKOFF.delay_s(attempt, random.random()))  # noqa: S311

    @abstractmethod
    async def _carry(self) -> None:
        """Connects, calls `_connected`, delivers and sends until the connection breaks.

        Raises:
            StoreError: it broke, or could not be made.
        """

    def _connected(self) -> None:
        self.is_connected = True
        self._sending_since = None
        _log.info("bus is connected")
        self._resumed()

    async def _send_for_ever(self, send: Callable[[list[Message]], Awaitable[object]]) -> None:
        """Sends batches; an empty one now and then, which shows whether anybody is there."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_S):
                    await self._waiting.wait()
                    await asyncio.sleep(_GATHER_S)
            size = min(len(self._queue), _MAX_BATCH)
            self._batch = [self._queue.popleft() for _ in range(size)]
            if not self._queue:
                self._waiting.clear()
            self._sending_since = monotonic()
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await send(self._batch)
            except TimeoutError:
                raise StoreUnavailable("the bus does not answer") from None
            self._sending_since = None
            self._batch = []


class PostgresBus(_QueuedBus):
    """NOTIFY on a connection of its own, never in a transaction that writes.

    Commits with notifications take one lock of the whole server until they are on disk.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    async def _carry(self) -> None:
        parts: list[str] = []

        def heard(_conn: object, _pid: int, _channel: str, payload: object) -> None:
            whole = _assembled(parts, str(payload))
            if whole is not None:
                self._deliver(*whole)

        async with self._database.direct() as conn:
            await conn.add_listener(CHANNEL, heard)
            # A broken connection is noticed at once: waking up leads to a statement, which fails.
            conn.add_termination_listener(lambda _: self._waiting.set())
            self._connected()
            await self._send_for_ever(lambda batch: _notify(conn, batch))


async def _notify(conn: Direct, batch: Sequence[Message]) -> None:
    payloads = [payload for message in batch for payload in _payloads(*message)]
    with translated():
        await conn.execute("select pg_notify($1, p) from unnest($2::text[]) p", CHANNEL, payloads)


def _payloads(slug: str, message: bytes) -> list[str]:
    """The message in parts that NOTIFY takes. The parts of one statement arrive in a row."""
    pieces = list(_pieces(message)) or [b""]
    last = len(pieces) - 1
    return [
        _SEPARATOR.join((str(n), str(last), slug, piece.decode())) for n, piece in enumerate(pieces)
    ]


def _pieces(message: bytes) -> Iterator[bytes]:
    """Cuts between characters, never within one."""
    start = 0
    while start < len(message):
        end = min(start + _MAX_PAYLOAD_BYTES, len(message))
        while end < len(message) and message[end] & 0xC0 == _CONTINUATION:
            end -= 1
        yield message[start:end]
        start = end


def _assembled(parts: list[str], payload: str) -> Message | None:
    """Collects parts; the whole message with its last part, None before."""
    if payload.count(_SEPARATOR) < _FIELDS - 1:
        return None  # somebody else's notification
    number, last, slug, piece = payload.split(_SEPARATOR, _FIELDS - 1)
    if number == "0":
        parts.clear()
    parts.append(piece)
    if number != last or len(parts) != int(last) + 1:
        return None
    return slug, "".join(parts).encode()


class RedisBus(_QueuedBus):
    """Redis pub/sub, for more processes than NOTIFY carries."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    async def _carry(self) -> None:
        client = aioredis.Redis.from_url(self._url, socket_connect_timeout=_ANSWER_S)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(CHANNEL)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._receive_for_ever(pubsub), name="bus:receive")
                    self._connected()
                    await self._send_for_ever(lambda batch: _redis_publish(client, batch))
        except _REDIS_AWAY as failed:
            raise StoreUnavailable(f"Redis is away: {failed}") from failed
        except ExceptionGroup as failed:
            # Not `except*`: before Python 3.11.4 it puts what is raised into a group again.
            if failed.split(_REDIS_AWAY)[1] is not None:
                raise
            raise StoreUnavailable(f"Redis is away: {failed.exceptions[0]}") from failed
        finally:
            await client.aclose()

    async def _receive_for_ever(self, pubsub: "aioredis.client.PubSub") -> None:
        async for event in pubsub.listen():
            if event["type"] == "message":
                slug, _, message = event["data"].partition(_SEPARATOR.encode())
                self._deliver(slug.decode(), message)


async def _redis_publish(client: "aioredis.Redis", batch: list[Message]) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.ping()
        for slug, message in batch:
            pipeline.publish(CHANNEL, _SEPARATOR.join((slug, "")).encode() + message)
        await pipeline.execute()
