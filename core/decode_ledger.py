"""What a decoder was given, what came out, and what its successor must be told when it dies."""

from collections import deque
from dataclasses import dataclass
from itertools import islice

from core import flv

RATE_HZ = 16_000
_SAMPLES_PER_MS = RATE_HZ // 1000
_SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class _Tag:
    """One audio tag on the media clock."""

    media_ms: int
    payload: bytes


class DecodeLedger:
    """The time line of one publish, which outlives any one decoder.

    Tags go in and become FLV for the decoder's stdin; its PCM comes back and gets positions:
    samples at 16 kHz since the first tag. Tags whose sound has not come out, and those of the
    `ring_s` before, are kept, so that `restart` costs no sample: the new decoder gets them again
    and what was already heard is cut off. When more than `ring_bytes` are waiting the oldest go,
    and the position jumps over them.
    """

    def __init__(self, *, ring_s: float = 2.0, ring_bytes: int = 1 << 20) -> None:
        self._ring_ms = int(ring_s * 1000)
        self._max_bytes = ring_bytes
        self._clock = flv.MediaClock()
        self._header = b""
        self._ring: deque[_Tag] = deque()
        self._ring_bytes = 0
        self._media_ms = 0
        self._base_ms: int | None = 0
        self._decoder_samples = 0
        self._heard_samples = 0
        self._odd = b""

    @property
    def has_header(self) -> bool:
        """Whether the AAC header came, without which no decoder can start."""
        return bool(self._header)

    @property
    def waiting_ms(self) -> int:
        """Milliseconds of media that were added and have not come out."""
        return max(0, self._media_ms - self._heard_samples // _SAMPLES_PER_MS)

    @property
    def heard_samples(self) -> int:
        """Position behind the last sample that came out."""
        return self._heard_samples

    @property
    def jumps(self) -> int:
        """Jumps of the publisher's clock that were closed."""
        return self._clock.jumps

    def add(self, timestamp_ms: int, payload: bytes, *, is_header: bool) -> bytes:
        """Takes one tag; returns what a running decoder gets for it, maybe nothing."""
        if is_header:
            if payload == self._header:
                return b""
            self._header = payload
            self._forget()
            return flv.audio_tag(self._flv_ms(self._media_ms), payload)
        if not self._header:
            return b""
        self._media_ms = self._clock.at(timestamp_ms)
        self._ring.append(_Tag(self._media_ms, payload))
        self._ring_bytes += len(payload)
        self._trim()
        return flv.audio_tag(self._flv_ms(self._media_ms), payload)

    def take(self, pcm: bytes) -> tuple[int, bytes] | None:
        """Takes PCM from the decoder: (position of its first sample, s16le bytes), if any is new.

        A byte without its partner is kept for the next call.
        """
        pcm = self._odd + pcm
        whole = len(pcm) // _SAMPLE_BYTES * _SAMPLE_BYTES
        pcm, self._odd = pcm[:whole], pcm[whole:]
        position = (self._base_ms or 0) * _SAMPLES_PER_MS + self._decoder_samples
        self._decoder_samples += len(pcm) // _SAMPLE_BYTES
        known = max(0, self._heard_samples - position)
        pcm = pcm[known * _SAMPLE_BYTES :]
        if not pcm:
            return None
        position += known
        self._heard_samples = position + len(pcm) // _SAMPLE_BYTES
        return position, pcm

    def restart(self, *, replay: bool = True) -> bytes:
        """What a new decoder reads first: file header, AAC header and the kept tags.

        Args:
            replay: False after a decoder died without a new sample: one of the kept tags may be
                what killed it, so they are given up.
        """
        if not replay:
            self._forget()
        self._odd = b""
        self._decoder_samples = 0
        self._base_ms = self._ring[0].media_ms if self._ring else None
        start = self._base_ms or 0
        tags = (flv.audio_tag(tag.media_ms - start, tag.payload) for tag in self._ring)
        return flv.HEADER + flv.audio_tag(0, self._header) + b"".join(tags)

    def _flv_ms(self, media_ms: int) -> int:
        """Time for the present decoder; the first tag that it gets has time 0."""
        if self._base_ms is None:
            self._base_ms = media_ms
        return media_ms - self._base_ms

    def _forget(self) -> None:
        self._ring.clear()
        self._ring_bytes = 0

    def _trim(self) -> None:
        heard_ms = self._heard_samples // _SAMPLES_PER_MS
        while len(self._ring) > 1:
            second = next(islice(self._ring, 1, None))
            spare = second.media_ms <= heard_ms - self._ring_ms
            if not spare and self._ring_bytes <= self._max_bytes:
                return
            self._ring_bytes -= len(self._ring.popleft().payload)
