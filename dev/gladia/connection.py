"""One WebSocket of one session: reads audio, acknowledges it, and goes wrong when told to."""

import asyncio
import json
import socket
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from time import monotonic
from typing import Literal, assert_never

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from dev.gladia.acknowledger import Acknowledger
from dev.gladia.faults import (
    Acks,
    Drop,
    ExpireToken,
    FaultScript,
    IgnoreStop,
    JumpTime,
    Moment,
    Mute,
    Say,
    Stall,
    StreamFault,
)
from dev.gladia.live_session import ConnectionRecord, LiveSession
from dev.gladia.messages import Message, dumps
from dev.gladia.policy import Policy

_TICK_S = 0.01
_OUTBOX = 8192
_CHUNK = "audio_chunk"
_GONE = 4403
STREAM_FAULTS: tuple[type[StreamFault], ...] = (
    Drop,
    ExpireToken,
    Stall,
    Mute,
    Acks,
    Say,
    JumpTime,
)


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str = ""


class Connection:
    """Serves one open socket until either side ends it.

    What the client does not read is kept up to 8192 messages; then the connection is reset.
    """

    def __init__(
        self,
        *,
        ws: web.WebSocketResponse,
        request: web.Request,
        session: LiveSession,
        faults: FaultScript,
        policy: Policy,
    ) -> None:
        self.session = session
        self.record: ConnectionRecord | None = None
        self._ws = ws
        self._request = request
        self._faults = faults
        self._policy = policy
        self._outbox: asyncio.Queue[str | bytes | Close] = asyncio.Queue(_OUTBOX)
        self._over = asyncio.Event()
        self._acks = Acknowledger(session=session, policy=policy, send=self._acknowledge)
        self._heard_at = monotonic()
        self._awake = asyncio.Event()
        self._awake.set()
        self._muted: Mute | None = None
        self._closed_by: Literal["client", "server", "lost", ""] = ""

    async def serve(self) -> None:
        """Returns when the socket is gone; the session then knows."""
        self.record = self.session.connected(self.send)
        self._acks.start_byte = self.record.start_byte
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._read(), name="gladia-read"),
                    group.create_task(self._write(), name="gladia-write"),
                    group.create_task(self._tick(), name="gladia-tick"),
                ]
                await self._over.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._settle()

    def send(self, message: Message) -> None:
        """Queues a message, unless this connection has fallen silent."""
        if self._muted is None:
            self._put(dumps(message))

    def _acknowledge(self, message: Message) -> None:
        if self._muted is None or self._muted.acknowledges:
            self._put(dumps(message))

    def close(self, code: int, reason: str = "") -> None:
        """Closes after what is queued was sent."""
        self._put(Close(code, reason))

    def drop(self, how: Literal["reset", "fin"] | int, reason: str = "") -> None:
        """Ends the connection at once, or with a close code after what is queued."""
        if isinstance(how, int):
            self.close(how, reason)
            return
        transport = self._request.transport
        if transport is not None:
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
            else:
                transport.close()
        self._end("server", 1006)

    def _settle(self) -> None:
        record = self.record
        assert record is not None
        record.closed_at = monotonic()
        record.closed_by = self._closed_by or "lost"
        record.close_code = record.close_code or self._ws.close_code or 1006
        superseded = self.session.connections[-1] is not record
        if not superseded:
            self.session.disconnected()
        by_client = self._closed_by == "client" and record.close_code in (1000, 1005)
        if by_client and self._policy.client_close_stops:
            self.session.stop("stopped")

    def _end(self, by: Literal["client", "server", "lost"], code: int | None = None) -> None:
        self._blame(by, code)
        self._over.set()

    def _blame(self, by: Literal["client", "server", "lost"], code: int | None) -> None:
        """Who ended it: the first one counts."""
        if not self._closed_by:
            self._closed_by = by
            if self.record is not None:
                self.record.close_code = code

    def _put(self, frame: str | bytes | Close) -> None:
        try:
            self._outbox.put_nowait(frame)
        except asyncio.QueueFull:
            self.drop("reset")

    # Out

    async def _write(self) -> None:
        while True:
            frame = await self._outbox.get()
            await self._awake.wait()
            try:
                match frame:
                    case Close(code, reason):
                        self._blame("server", code)
                        await self._ws.close(code=code, message=reason.encode())
                        self._over.set()
                        return
                    case str():
                        await self._ws.send_str(frame)
                    case bytes():
                        await self._ws.send_bytes(frame)
            except (ConnectionError, RuntimeError):
                self._end("lost")
                return

    def _stall(self, for_s: float | None) -> None:
        self._awake.clear()
        if for_s is not None:
            asyncio.get_running_loop().call_later(for_s, self._awake.set)

    # In

    async def _read(self) -> None:
        assert self.record is not None
        while True:
            await self._awake.wait()
            message = await self._ws.receive()
            self._heard_at = monotonic()
            match message.type:
                case WSMsgType.BINARY:
                    await self._audio(message.data)
                case WSMsgType.TEXT:
                    await self._text(message.data)
                case WSMsgType.ERROR:
                    code = message.data.code if isinstance(message.data, WebSocketError) else None
                    self.session.oversized_frames += code == WSCloseCode.MESSAGE_TOO_BIG
                    self._end("server", code)
                    return
                case WSMsgType.CLOSE:
                    self._end("client", message.data)
                    return
                case WSMsgType.CLOSING:
                    await self._over.wait()
                case _:
                    self._end("lost")
                    return

    async def _text(self, text: str) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
            chunk = b64decode(message["data"]["chunk"], validate=True) if kind == _CHUNK else b""
        except (ValueError, TypeError, KeyError, Base64Error):
            self._complain("invalid_message", "message is malformed")
            return
        if kind == _CHUNK:
            await self._audio(chunk)
        elif kind == "stop_recording":
            self._stop()
        else:
            self._complain("invalid_message", f"unknown message type {kind}")

    def _complain(self, code: str, reason: str) -> None:
        if self.session.request.messages["receive_errors"]:
            self.send(self.session.writer.error(code, reason))

    def _stop(self) -> None:
        session = self.session
        if self._faults.take(IgnoreStop, self._moment()):
            return
        session.stop_requested = True
        self._acks.flush()
        if session.request.messages["receive_acknowledgments"]:
            left_s = max(0.0, session.ledger.received_s - session.heard_s)
            self.send(session.writer.stop_ack(session.ledger.received_s, left_s))
        session.stop("stopped")

    async def _audio(self, chunk: bytes) -> None:
        assert self.record is not None
        self.record.chunks += bool(chunk)
        self.record.largest_frame_bytes = max(self.record.largest_frame_bytes, len(chunk))
        if not self.session.is_open:
            self._acks.refuse("recording is stopped")
        elif self.session.ledger.misaligned(chunk):
            self._acks.refuse("the chunk must contain complete frames")
        else:
            self._receive(chunk)
            await self.session.breathe()

    def _receive(self, chunk: bytes) -> None:
        """Faults come between the audio and its acknowledgement: there a drop hurts most."""
        ledger = self.session.ledger
        start = ledger.received_bytes
        ready = ledger.receive(chunk)
        self._misbehave()
        if chunk and self._acks.refuses:
            ledger.take_back(chunk)
            self._acks.refuse("the chunk could not be processed")
            return
        self.session.take(ready)
        if not self._over.is_set():
            self._acks.acknowledge(start, start + len(chunk))

    # Faults and timers

    def _moment(self) -> Moment:
        assert self.record is not None
        elapsed_s = monotonic() - self.record.opened_at
        return self.session.moment(chunk=self.record.chunks, elapsed_s=elapsed_s)

    def _misbehave(self) -> None:
        while fault := self._faults.take(STREAM_FAULTS, self._moment()):
            self._do(fault)
            if self._over.is_set():
                return

    def _do(self, fault: StreamFault) -> None:
        match fault:
            case Drop(how=how, reason=reason, end_session=end_session):
                if end_session:
                    self.session.stop("terminated")
                self.drop(how, reason)
            case ExpireToken():
                self.session.token_expired = True
            case Stall(for_s=for_s):
                self._stall(for_s)
            case Mute():
                self._muted = fault
            case Acks():
                self._acks.treat(fault)
            case Say(frame=frame):
                self._put(frame)
            case JumpTime(seconds=seconds):
                self.session.time_offset_s += seconds
            case _:
                assert_never(fault)

    async def _tick(self) -> None:
        while True:
            transport = self._request.transport
            if transport is None or transport.is_closing():
                self._end("lost")
                return
            self._misbehave()
            self._acks.tick(monotonic())
            if self.session.over.is_set():
                self._finish()
                return
            if monotonic() - self._heard_at >= self._policy.scaled(self._policy.idle_timeout_s):
                if self._policy.idle_ends_session:
                    self.session.stop("expired")
                self.close(self._policy.idle_close_code, "idle")
                return
            await asyncio.sleep(_TICK_S)

    def _finish(self) -> None:
        """The session has ended while this socket was open."""
        codes = {"time_limit": self._policy.max_session_close_code, "expired": _GONE}
        self.close(codes.get(self.session.end_reason, 1000))
