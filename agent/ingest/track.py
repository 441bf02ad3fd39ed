"""`/egress/audio/{sessionId}/{trackId}?token=`: the WebSocket that Track Egress sends PCM to.

What Egress does was read from its source and seen on the wire (livekit/egress v1.12-1.14,
pkg/pipeline/sink/websocket.go): no header of ours, no subprotocol, so the key is in the address;
binary messages of s16le 48 kHz stereo at exact real time, also while muted; text only as
`{"muted": bool}`; its own Ping every 30 s, and a Pong with a fixed payload of its own, so that
our side must not ping with a time-out. It never reconnects.
"""

import asyncio
import json
import logging
from collections import Counter
from typing import Protocol

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

logger = logging.getLogger(__name__)

PATH = "/egress/audio/{session_id}/{track_id}"
IDLE_S = 10.0
"""Seconds without audio after which the connection is closed: Egress sends silence, too."""
MAX_MESSAGE_BYTES = 256 * 1024
_FORBIDDEN = 1008
_GOING_AWAY = 1001
_TOO_BIG = 1009


class TrackSink(Protocol):
    """Where the audio of one connection goes."""

    def feed(self, pcm: bytes) -> None:
        """Takes s16le 48 kHz stereo; must not block."""

    def end(self) -> None:
        """The last call."""


class TrackGate(Protocol):
    """Who may send which track, and where it goes."""

    async def authorize_track(self, slug: str, track_sid: str, token: str) -> bool:
        """Whether the token opens this track of the session now."""

    def open_track(self, slug: str, track_sid: str) -> TrackSink:
        """A sink for an authorised connection."""


class TrackEndpoint:
    """The endpoint of one process; one live connection for each track."""

    def __init__(self, gate: TrackGate, *, idle_s: float = IDLE_S) -> None:
        self._gate = gate
        self._idle_s = idle_s
        self._live: dict[tuple[str, str], WebSocket] = {}
        self.closed: Counter[str] = Counter()
        """Ended and refused connections by reason."""

    def route(self) -> WebSocketRoute:
        return WebSocketRoute(PATH, self.serve)

    async def evict(self, slug: str) -> None:
        """Ends every track of a session: its keys were revoked."""
        for (session, _), socket in list(self._live.items()):
            if session == slug:
                await socket.close(_FORBIDDEN)

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from the request to its end; refused ones are never upgraded."""
        slug, track = socket.path_params["session_id"], socket.path_params["track_id"]
        token = socket.query_params.get("token", "")
        if (slug, track) in self._live:
            self.closed["duplicate"] += 1
            await socket.close(_FORBIDDEN)
            return
        if not await self._gate.authorize_track(slug, track, token):
            self.closed["refused"] += 1
            await socket.close(_FORBIDDEN)
            return
        if (slug, track) in self._live:  # another one came while we asked
            await socket.close(_FORBIDDEN)
            return
        self._live[slug, track] = socket
        await socket.accept()
        sink = self._gate.open_track(slug, track)
        reason = "lost"
        try:
            reason = await self._receive(socket, sink)
        finally:
            del self._live[slug, track]
            sink.end()
            self.closed[reason] += 1
            logger.info("track ended", extra={"room": slug, "track_sid": track, "reason": reason})

    async def _receive(self, socket: WebSocket, sink: TrackSink) -> str:
        """Feeds the sink until the end; says how it ended."""
        try:
            heard_at = asyncio.get_running_loop().time()
            while True:
                async with asyncio.timeout_at(heard_at + self._idle_s):
                    message = await socket.receive()
                pcm = message.get("bytes")
                if message["type"] == "websocket.disconnect":
                    return "done"
                if pcm is None:
                    _note(message.get("text") or "")
                    continue
                if len(pcm) > MAX_MESSAGE_BYTES:
                    await socket.close(_TOO_BIG)
                    return "too_big"
                heard_at = asyncio.get_running_loop().time()
                sink.feed(pcm)
        except TimeoutError:
            await socket.close(_GOING_AWAY)
            return "idle"
        except WebSocketDisconnect:
            return "lost"


def _note(text: str) -> None:
    """Egress says `{"muted": ...}` also when packets are late: nothing may depend on it."""
    try:
        muted = json.loads(text).get("muted")
    except (ValueError, AttributeError):
        muted = None
    logger.debug("track egress says something", extra={"muted": muted is True})
