"""One WebSocket to Gladia: sends in order, reports once how it ended."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import aiohttp

from core.gladia.commands import Closed
from core.gladia.messages import STOP_RECORDING

_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 2.0
_PING_S = 10.0
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_ABNORMAL = 1006


class Socket:
    """Runs in `run`. `send` never blocks: what may be in flight is bounded by the core.

    Callbacks come in this order: `on_open` at most once, then `on_text` for each message, then
    `on_closed` once; none of them after `close`.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        on_open: Callable[[], None],
        on_text: Callable[[str], None],
        on_closed: Callable[[Closed], None],
    ) -> None:
        self._http = http
        self._url = url
        self._on_open = on_open
        self._on_text = on_text
        self._on_closed = on_closed
        self.has_said_stop = False
        """stop_recording went out: the session ends whatever becomes of this connection."""
        self._outgoing: deque[bytes | str] = deque()
        self._has_outgoing = asyncio.Event()
        self._closing = asyncio.Event()

    def send(self, message: bytes | str) -> None:
        """Queues a binary or a text frame."""
        self._outgoing.append(message)
        self._has_outgoing.set()

    def close(self) -> None:
        """Sends what is queued, then says goodbye, within two seconds."""
        self._closing.set()
        self._has_outgoing.set()

    async def run(self) -> None:
        """Lives as long as the connection."""
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                socket = await self._unless_closing()
        except aiohttp.WSServerHandshakeError as error:
            self._ended(Closed(status=error.status, reason=error.message, opened=False))
            return
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Some errors quote the URL, whose token is a secret; those of the system do not.
            detail = f": {error}" if isinstance(error, OSError) else ""
            self._ended(Closed(reason=type(error).__name__ + detail, opened=False))
            return
        try:
            if self._closing.is_set():
                return
            self._on_open()
            await self._converse(socket)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await socket.close()

    async def _unless_closing(self) -> aiohttp.ClientWebSocketResponse:
        return await self._http.ws_connect(
            self._url,
            autoclose=False,  # or a farewell that fails hides the code of the one that came
            heartbeat=_PING_S,
            max_msg_size=_MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S / 2),
        )

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Reads here, writes in a task of its own, until either end has had enough."""
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(socket), name="gladia:write")
            reader = group.create_task(self._read(socket), name="gladia:read")
            closing = group.create_task(self._closing.wait(), name="gladia:closing")
            await asyncio.wait([reader, closing], return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                await asyncio.wait([writer], timeout=_CLOSE_TIMEOUT_S)
            for task in (writer, reader, closing):
                task.cancel()
        if not self._closing.is_set():
            code = socket.close_code
            self._ended(Closed(code=_ABNORMAL if code is None else code, reason=_reason(socket)))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if self._closing.is_set():
                return
            if message.type is aiohttp.WSMsgType.TEXT:
                self._on_text(message.data)
            else:
                self._on_text("")  # Gladia sends no binary frames: the core counts it as a fault

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            while self._outgoing:
                message = self._outgoing.popleft()
                try:
                    if isinstance(message, bytes):
                        await socket.send_bytes(message)
                    else:
                        await socket.send_str(message)
                        self.has_said_stop = self.has_said_stop or message == STOP_RECORDING
                except (aiohttp.ClientError, OSError):
                    return  # the reader learns why
            if self._closing.is_set():
                return
            self._has_outgoing.clear()
            await self._has_outgoing.wait()

    def _ended(self, closed: Closed) -> None:
        if not self._closing.is_set():
            self._on_closed(closed)


def _reason(socket: aiohttp.ClientWebSocketResponse) -> str:
    error = socket.exception()
    return "" if error is None else f"{type(error).__name__}: {error}"
