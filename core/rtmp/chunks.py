"""The chunk stream: how RTMP cuts messages into pieces and mixes them on one connection.

Adobe, "Real-Time Messaging Protocol" 1.0, section 5.3. The reader keeps what audio and commands
need; the payload of every other message is counted and thrown away as it arrives, so that video
costs no memory. Extended timestamps are repeated in continuation chunks, as 5.3.1.3 says and as
ffmpeg and GStreamer write them.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from core.errors import RemoteProtocolError
from core.rtmp.limits import Limits

_EXTENDED = 0xFFFFFF
_CLOCK = 1 << 32
_HEADER_BYTES = (11, 7, 3, 0)


class MessageType(IntEnum):
    """Message types that we read or write; every other one is skipped."""

    SET_CHUNK_SIZE = 1
    ABORT = 2
    ACKNOWLEDGEMENT = 3
    USER_CONTROL = 4
    WINDOW_ACK_SIZE = 5
    SET_PEER_BANDWIDTH = 6
    AUDIO = 8
    VIDEO = 9
    COMMAND_AMF3 = 17
    COMMAND_AMF0 = 20


_KEPT = frozenset(MessageType) - {MessageType.VIDEO}


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message. `payload` is empty for types that nobody here reads."""

    type_id: int
    stream_id: int
    timestamp_ms: int
    """Milliseconds on the publisher's clock, modulo 2**32."""
    payload: bytes


@dataclass(slots=True)
class _ChunkStream:
    """The last header of one chunk stream, and its unfinished message."""

    timestamp_ms: int = 0
    delta_ms: int = 0
    extended: bool = False
    length: int = 0
    type_id: int = 0
    stream_id: int = 0
    missing: int = 0
    """Bytes of the unfinished message that have not come yet; 0 between messages."""
    parts: list[bytes] = field(default_factory=list)
    held_bytes: int = 0


class ChunkReader:
    """Bytes in, whole messages out. After an error the connection is lost for good."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, _ChunkStream] = {}
        self._buffer = bytearray()
        self._chunk_bytes = 128
        self._held_bytes = 0
        self.message_bytes = limits.command_bytes
        """Bound on one message and on all unfinished ones together."""

    @property
    def chunk_bytes(self) -> int:
        """Chunk size of the peer, in bytes."""
        return self._chunk_bytes

    @chunk_bytes.setter
    def chunk_bytes(self, size: int) -> None:
        if not 1 <= size <= self._limits.chunk_bytes:
            raise RemoteProtocolError(f"chunk size {size} is not accepted")
        self._chunk_bytes = size

    def feed(self, data: bytes) -> None:
        """Adds received bytes; call `next_message` until it says None."""
        self._buffer += data

    def next_message(self) -> Message | None:
        """The next whole message, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: a rule of the chunk stream, or a limit, was broken.
        """
        at = 0
        message = None
        while message is None:
            step = self._read_chunk(at)
            if step is None:
                break
            at, message = step
        if at:
            del self._buffer[:at]
        return message

    def abort(self, chunk_stream_id: int) -> None:
        """Forgets the unfinished message of a chunk stream (message type 2)."""
        stream = self._streams.get(chunk_stream_id)
        if stream is not None:
            self._release(stream)
            stream.missing = 0

    def _read_chunk(self, at: int) -> tuple[int, Message | None] | None:
        """Reads one chunk at `at`: (position behind it, message if it ended one), or None."""
        basic = self._basic_header(at)
        if basic is None:
            return None
        fmt, chunk_stream_id, at = basic
        stream = self._streams.get(chunk_stream_id)
        if stream is None:
            if fmt != 0:
                raise RemoteProtocolError("chunk stream begins without a header")
            if len(self._streams) >= self._limits.chunk_streams:
                raise RemoteProtocolError("too many chunk streams")
            stream = _ChunkStream()
        elif stream.missing and fmt != 3:  # noqa: PLR2004 - chunk format 3 continues a message
            raise RemoteProtocolError("new header inside a message")
        header = self._message_header(stream, fmt, at)
        if header is None:
            return None
        fields, at = header
        starts = not stream.missing
        size = min(fields.length if starts else stream.missing, self._chunk_bytes)
        if starts:
            self._check_length(fields)
        if len(self._buffer) < at + size:
            return None
        if starts:
            self._begin(chunk_stream_id, stream, fmt, fields)
        return at + size, self._append(stream, at, size)

    def _basic_header(self, at: int) -> tuple[int, int, int] | None:
        buffer = self._buffer
        if len(buffer) <= at:
            return None
        first = buffer[at]
        fmt, chunk_stream_id = first >> 6, first & 0x3F
        if chunk_stream_id > 1:
            return fmt, chunk_stream_id, at + 1
        size = 1 + chunk_stream_id
        if len(buffer) < at + 1 + size:
            return None
        chunk_stream_id = 64 + int.from_bytes(buffer[at + 1 : at + 1 + size], "little")
        return fmt, chunk_stream_id, at + 1 + size

    def _message_header(
        self, stream: _ChunkStream, fmt: int, at: int
    ) -> tuple["_Fields", int] | None:
        """The header fields that this chunk carries or inherits; None while incomplete."""
        end = at + _HEADER_BYTES[fmt]
        raw = self._buffer[at:end]
        if len(self._buffer) < end:
            return None
        fields = _Fields(stream.delta_ms, stream.length, stream.type_id, stream.stream_id)
        fields.extended = stream.extended
        if fmt <= 2:  # noqa: PLR2004 - formats 0 to 2 carry a time
            fields.time_ms = int.from_bytes(raw[0:3], "big")
            fields.extended = fields.time_ms == _EXTENDED
        if fmt <= 1:
            fields.length = int.from_bytes(raw[3:6], "big")
            fields.type_id = raw[6]
        if fmt == 0:
            fields.stream_id = int.from_bytes(raw[7:11], "little")
        if fields.extended:
            if len(self._buffer) < end + 4:
                return None
            fields.time_ms = int.from_bytes(self._buffer[end : end + 4], "big")
            end += 4
        return fields, end

    def _check_length(self, fields: "_Fields") -> None:
        if fields.length > self.message_bytes:
            raise RemoteProtocolError("message too long")

    def _begin(
        self, chunk_stream_id: int, stream: _ChunkStream, fmt: int, fields: "_Fields"
    ) -> None:
        self._streams[chunk_stream_id] = stream
        # 5.3.1.2.4: a message of format 3 after one of format 0 repeats its time as a delta.
        stream.delta_ms = fields.time_ms
        base = 0 if fmt == 0 else stream.timestamp_ms
        stream.timestamp_ms = (base + fields.time_ms) % _CLOCK
        stream.extended = fields.extended
        stream.length, stream.type_id = fields.length, fields.type_id
        stream.stream_id = fields.stream_id
        stream.missing = fields.length

    def _append(self, stream: _ChunkStream, at: int, size: int) -> Message | None:
        if stream.type_id in _KEPT:
            stream.parts.append(bytes(self._buffer[at : at + size]))
            stream.held_bytes += size
            self._held_bytes += size
            if self._held_bytes > self.message_bytes:
                raise RemoteProtocolError("too many unfinished messages")
        stream.missing -= size
        if stream.missing:
            return None
        payload = b"".join(stream.parts)
        self._release(stream)
        return Message(stream.type_id, stream.stream_id, stream.timestamp_ms, payload)

    def _release(self, stream: _ChunkStream) -> None:
        self._held_bytes -= stream.held_bytes
        stream.held_bytes = 0
        stream.parts.clear()


@dataclass(slots=True)
class _Fields:
    """One message header, carried or inherited."""

    time_ms: int
    length: int
    type_id: int
    stream_id: int
    extended: bool = False


def written(
    type_id: int, payload: bytes, *, chunk_bytes: int, chunk_stream_id: int, stream_id: int = 0
) -> bytes:
    """One message as chunks, with time 0: everything that an acceptor says has none.

    Args:
        type_id: a `MessageType`.
        payload: the whole message.
        chunk_bytes: our chunk size, as announced to the peer.
        chunk_stream_id: 2 for protocol control, 3..63 otherwise.
        stream_id: 0, or the message stream of a publish.
    """
    header = struct.pack(">B3s3sB", chunk_stream_id, b"\0\0\0", len(payload).to_bytes(3), type_id)
    header += struct.pack("<I", stream_id)
    pieces = [payload[at : at + chunk_bytes] for at in range(0, len(payload), chunk_bytes)]
    continuation = bytes([0xC0 | chunk_stream_id])
    return header + continuation.join(pieces)
