"""WebSocket connections to which many get the same bytes: encoded once, written to transports.

uvicorn's own path costs an ASGI message, a queue and a new encoding for each viewer; here a frame
made once goes straight to every transport.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from uvicorn import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Close, Frame, Opcode

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
STATE_KEY = "socket"
PING = b"\x89\x00"
"""A ping frame without payload."""
_TEXT = 0x81
_SHORT = 126
_MEDIUM = 1 << 16


def text_frame(payload: bytes) -> bytes:
    """One unmasked text frame, as a server sends it (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < _SHORT:
        return struct.pack("!BB", _TEXT, size) + payload
    if size < _MEDIUM:
        return struct.pack("!BBH", _TEXT, 126, size) + payload
    return struct.pack("!BBQ", _TEXT, 127, size) + payload


class DirectSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which also hands itself to the application's scope."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, STATE_KEY: self}, _loop)
        self.is_full = False
        """Whether the peer reads more slowly than we write; see `on_drained`."""
        self.on_drained: Callable[[], None] | None = None
        self.heard_at = self.loop.time()
        """When the peer last answered a ping, in the loop's seconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)

    def write(self, frame: bytes) -> None:
        """Sends an encoded frame now or, while the peer is slow, from the transport's buffer."""
        if not self.close_sent:
            self.transport.write(frame)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_full = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_full = False
        if self.on_drained is not None:
            self.on_drained()

    def handle_pong(self, event: Frame) -> None:
        self.heard_at = self.loop.time()
        super().handle_pong(event)

    def close(self, code: int, reason: str, *, linger_s: float) -> None:
        """Says goodbye with a code; cuts the line after `linger_s` if nobody listens."""
        if self.close_sent or self.transport.is_closing():
            return
        self.close_sent = True
        payload = Close(code, reason).serialize()
        self.transport.write(Frame(Opcode.CLOSE, payload).serialize(mask=False))
        self.close_timer = self.loop.call_later(linger_s, self.transport.abort)
