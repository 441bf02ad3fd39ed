"""Ways of live messages from the ingest to viewers outside the room: the bus, or HTTP.

Lossy by design, like every live path here: viewers catch up from the store.
"""

import asyncio
import logging
from collections import deque
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
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=MAX_WAITING)
        self._news = asyncio.Event()
        self.dropped = 0

    def publish(self, slug: str, payload: bytes) -> None:
        self.dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append((slug, payload))
        self._news.set()

    async def next_batch(self) -> list[tuple[str, bytes]]:
        """Waits for messages; takes at most `BATCH` of them, oldest first."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

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
                await self._bus.publish(await self.next_batch())


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
        self.failed = 0

    async def run(self) -> None:
        while True:
            for _, payload in await self.next_batch():
                if not await self._post(payload):
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
