"""From job processes to the worker's main process: one Unix datagram socket per worker.

Live messages for the bus, a bot's word until when its room was heard or that it is over, and
counted metrics travel here.
Lossy by design: what must not be lost goes through the journal.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES: Final = 60_000
_SOCKET_BUFFER_BYTES: Final = 1 << 20
"""Bytes the kernel keeps while the main process does not read; then 64 KiB in the job's memory."""
_LENGTH: Final = struct.Struct("!H")
_BUS: Final = b"B"
_LEFT: Final = b"L"
_METRICS: Final = b"M"
_HEARD: Final = b"H"


class RelaySender:
    """A job's end. Methods never block and never raise; use them in the loop's thread."""

    def __init__(self, transport: asyncio.DatagramTransport, protocol: "_Sending") -> None:
        self._transport = transport
        self._protocol = protocol
        self.dropped = 0
        """Datagrams that did not fit."""

    def publish(self, slug: str, payload: bytes) -> None:
        """Hands a live message to the bus."""
        name = slug.encode()
        self._send(_BUS + _LENGTH.pack(len(name)) + name + payload)

    def left(self, job_id: str) -> None:
        """Says that this job's room is over or was left, so that another bot may have it."""
        self._send(_LEFT + job_id.encode())

    def heard(self, job_id: str, until: datetime) -> None:
        """Says until when (UTC) all that was said in this job's room is written down."""
        self._send(_HEARD + f"{until.isoformat()} {job_id}".encode())

    def metrics(self, counts: Mapping[str, float]) -> None:
        """Adds to the worker's counters."""
        self._send(_METRICS + json.dumps(dict(counts)).encode())

    def _send(self, datagram: bytes) -> None:
        refused = self._protocol.paused or self._transport.is_closing()
        if refused or len(datagram) > MAX_DATAGRAM_BYTES:
            self.dropped += 1
            return
        self._transport.sendto(datagram)


class _Sending(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.paused = False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def error_received(self, exc: Exception) -> None:
        """The main process is gone, and this process will be in a moment."""
        logger.debug("relay refused a datagram", extra={"reason": str(exc)})


@asynccontextmanager
async def open_relay_sender(path: Path) -> AsyncIterator[RelaySender]:
    """Connects to the main process's socket."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        ours.connect(str(path))
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(_Sending, sock=ours)
    except BaseException:
        ours.close()
        raise
    try:
        yield RelaySender(transport, protocol)
    finally:
        transport.close()


class RelayReceiver(asyncio.DatagramProtocol):
    """The main process's end: each datagram becomes one call, in the event loop."""

    def __init__(
        self,
        *,
        on_message: Callable[[str, bytes], None],
        on_left: Callable[[str], None],
        on_heard: Callable[[str, datetime], None],
        on_metrics: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._on_message = on_message
        self._on_left = on_left
        self._on_heard = on_heard
        self._on_metrics = on_metrics

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's
        kind, body = data[:1], data[1:]
        if kind == _BUS:
            (length,) = _LENGTH.unpack_from(body)
            end = _LENGTH.size + length
            self._on_message(body[_LENGTH.size : end].decode(), body[end:])
        elif kind == _LEFT:
            self._on_left(body.decode())
        elif kind == _HEARD:
            until, job_id = body.decode().split(" ", 1)
            self._on_heard(job_id, datetime.fromisoformat(until))
        elif kind == _METRICS:
            self._on_metrics(json.loads(body))


@asynccontextmanager
async def listening(receiver: RelayReceiver, path: Path) -> AsyncIterator[None]:
    """Receives at `path`, which must not exist yet, in a directory that is ours alone."""
    loop = asyncio.get_running_loop()
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        ours.setblocking(False)
        ours.bind(str(path))
        transport, _ = await loop.create_datagram_endpoint(lambda: receiver, sock=ours)
    except BaseException:
        ours.close()
        raise
    try:
        yield
    finally:
        transport.close()
