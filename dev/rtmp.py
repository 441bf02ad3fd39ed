"""What an RTMP publisher says, as bytes: for tests, for the stand-in Egress and for benchmarks."""

from core import flv
from core.rtmp import amf
from core.rtmp.chunks import MessageType, written

HELLO = b"\x03" + bytes(1536)
"""C0 and C1."""
ECHO = bytes(1536)
"""C2; its content is not checked."""
AAC_HEADER = b"\xaf\x00\x14\x08"
"""AudioSpecificConfig of AAC-LC, 16 kHz, mono."""


def command(*values: object, stream_id: int = 0, chunk_bytes: int = 128) -> bytes:
    """One AMF0 command message."""
    return message(
        MessageType.COMMAND_AMF0,
        amf.encode(*values),
        stream_id=stream_id,
        chunk_bytes=chunk_bytes,
    )


def message(
    type_id: int,
    payload: bytes,
    *,
    chunk_stream_id: int = 3,
    stream_id: int = 0,
    timestamp_ms: int = 0,
    chunk_bytes: int = 128,
) -> bytes:
    """One message with a whole header; the time may need the extended field."""
    data = written(
        type_id,
        payload,
        chunk_bytes=chunk_bytes,
        chunk_stream_id=chunk_stream_id,
        stream_id=stream_id,
    )
    if timestamp_ms < 0xFFFFFF:  # noqa: PLR2004 - the three-byte field's escape value
        return data[:1] + timestamp_ms.to_bytes(3) + data[4:]
    extended = timestamp_ms.to_bytes(4)
    pieces = [payload[at : at + chunk_bytes] for at in range(0, len(payload), chunk_bytes)]
    joint = bytes([0xC0 | chunk_stream_id]) + extended
    return data[:1] + b"\xff\xff\xff" + data[4:12] + extended + joint.join(pieces)


def set_chunk_size(size: int) -> bytes:
    return message(MessageType.SET_CHUNK_SIZE, size.to_bytes(4), chunk_stream_id=2)


def connect(app: str = "session") -> bytes:
    return command("connect", 1, {"app": app, "type": "nonprivate", "tcUrl": f"rtmp://x/{app}"})


def publish(name: str, *, app: str = "session") -> bytes:
    """Everything from C0 to `publish`, sent without waiting for an answer."""
    asked = command("publish", 3, None, name, "live", stream_id=1)
    return HELLO + ECHO + connect(app) + command("createStream", 2, None) + asked


def audio(timestamp_ms: int, payload: bytes, chunk_bytes: int = 128) -> bytes:
    """One audio tag of message stream 1."""
    return message(
        MessageType.AUDIO,
        payload,
        chunk_stream_id=4,
        stream_id=1,
        timestamp_ms=timestamp_ms,
        chunk_bytes=chunk_bytes,
    )


def unpublish() -> bytes:
    return command("deleteStream", 4, None, 1)


def read_flv_audio(data: bytes) -> list[tuple[int, bytes]]:
    """The audio tags of an FLV file: (milliseconds, body)."""
    tags, at = [], len(flv.HEADER)
    while at + flv.TAG_BYTES <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        time_ms = int.from_bytes(data[at + 7 : at + 8] + data[at + 4 : at + 7], "big")
        body = data[at + flv.TAG_BYTES : at + flv.TAG_BYTES + size]
        if data[at] == MessageType.AUDIO:
            tags.append((time_ms, body))
        at += flv.TAG_BYTES + size + 4
    return tags
