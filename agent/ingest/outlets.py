"""Ways of live messages from the ingest to viewers outside the room: the bus, or HTTP.

Lossy by design, like every live path here: viewers catch up from the store.
"""

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import Final

import aiohttp

from db.bus import Bus

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 2000
"""Messages; beyond it the oldest goes."""
BATCH: Final = 50
_POST_S: Final = 5.0
_PAUSE_S: Final = 1.0


class Outlet:
    """Takes messages at once, and hands them on from `run`."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, str, bytes]] = deque(maxlen=MAX_WAITING)
        self._news = asyncio.Event()
        self.dropped = 0
        self.failed = 0
        """Messages that nobody took."""
        self.sent = 0
        self.took_s = 0.0
        """Sum over the messages that were sent, from `publish` on."""

    def publish(self, slug: str, payload: bytes) -> None:
        self.dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append((monotonic(), slug, payload))
        self._news.set()

    async def next_batch(self) -> list[tuple[float, str, bytes]]:
        """Waits for messages; takes at most `BATCH` of them, oldest first."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def note_sent(self, published_at: float) -> None:
        """A message of that monotonic time was taken."""
        self.sent += 1
        self.took_s += monotonic() - published_at

    async def run(self) -> None:
        """Hands messages on until cancelled."""
        raise NotImplementedError


class BusOutlet(Outlet):
    """`direct`: the bus that the web processes read."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bus.run(), name="ingest:bus")
            while True:
                batch = await self.next_batch()
                await self._bus.publish([(slug, payload) for _, slug, payload in batch])
                for at, _, _ in batch:
                    self.note_sent(at)


class HttpOutlet(Outlet):
    """`http`: the broadcast route of a web service that shares neither memory nor bus with us."""

    def __init__(self, http: aiohttp.ClientSession, ws_server_url: str, secret: str) -> None:
        super().__init__()
        self._http = http
        self._url = f"{ws_server_url}/api/realtime/transcribe/broadcast"
        self._headers = {
            "Authorization": f"Bearer {secret}",
            "Content-Type": "application/json",
        }

    async def run(self) -> None:
        while True:
            for at, _, payload in await self.next_batch():
                if await self._post(payload):
                    self.note_sent(at)
                else:
                    self.failed += 1
                    await asyncio.sleep(_PAUSE_S)

    async def _post(self, payload: bytes) -> bool:
        try:
            async with (
                asyncio.timeout(_POST_S),
                self._http.post(self._url, data=payload, headers=self._headers) as answer,
            ):
                if answer.status < 300:  # noqa: PLR2004 - HTTP success
                    return True
                logger.warning("the web service refused a line", extra={"status": answer.status})
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the web service is away", extra={"error": type(error).__name__})
        return False
