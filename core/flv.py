"""FLV, as far as a decoder needs it that reads AAC from a pipe; and the time line of one publish.

Adobe, "Video File Format Specification" version 10.1, annex E.
"""

import struct
from dataclasses import dataclass

HEADER = b"FLV\x01\x04\x00\x00\x00\x09" + bytes(4)
"""File header: version 1, audio only; and the size of the tag before the first, 0."""
TAG_BYTES = 11
"""Size of a tag's header; its body follows, then its whole size in four bytes."""
_AUDIO = 8
_CLOCK = 1 << 32


def audio_tag(timestamp_ms: int, payload: bytes) -> bytes:
    """One audio tag, followed by its size.

    Args:
        timestamp_ms: milliseconds from 0; FLV wraps them at 2**32.
        payload: FLV audio body, its codec bytes included.
    """
    size, low = len(payload).to_bytes(3), (timestamp_ms & 0xFFFFFF).to_bytes(3)
    high = bytes([timestamp_ms >> 24 & 0xFF])
    head = bytes([_AUDIO]) + size + low + high + bytes(3)
    return head + payload + struct.pack(">I", TAG_BYTES + len(payload))


@dataclass(slots=True)
class MediaClock:
    """Turns a publisher's time stamps into milliseconds since its first tag.

    They wrap at 2**32 and may jump. A jump that no decoder should fill with silence, forward by
    more than `max_jump_ms` or backward by more than `max_back_ms`, is closed: media time goes on
    behind the last tag, and `jumps` counts it.
    """

    max_jump_ms: int = 10_000
    max_back_ms: int = 1_000
    step_ms: int = 23
    """Milliseconds put between the two tags around a closed jump: about one AAC frame."""
    jumps: int = 0
    _last_raw: int | None = None
    _at: int = 0

    def at(self, timestamp_ms: int) -> int:
        """Milliseconds since the first tag, from 0; never negative."""
        if self._last_raw is None:
            self._last_raw = timestamp_ms
            return self._at
        step = (timestamp_ms - self._last_raw + _CLOCK // 2) % _CLOCK - _CLOCK // 2
        self._last_raw = timestamp_ms
        if not -self.max_back_ms <= step <= self.max_jump_ms:
            self.jumps += 1
            step = self.step_ms
        self._at = max(0, self._at + step)
        return self._at
