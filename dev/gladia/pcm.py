"""From the declared audio format to mono 16 kHz samples per channel, as the ears want them.

The quality is that of a stand-in: linear interpolation after a moving average.
"""

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
SAMPLE_RATE = 16_000
_WAV_HEADER_BYTES = 44
_COMPANDED = ("wav/alaw", "wav/ulaw")
_WIDTH_16, _WIDTH_24 = 2, 3


class AudioReader:
    """Decodes one session's byte stream, chunk by chunk; keeps the resampler's state."""

    def __init__(self, *, encoding: str, bit_depth: int, sample_rate: int, channels: int) -> None:
        self.width = 1 if encoding in _COMPANDED else bit_depth // 8
        self.frame_bytes = self.width * channels
        self.bytes_per_second = self.frame_bytes * sample_rate
        self._encoding = encoding
        self._channels = channels
        self._resamplers = [Resampler(sample_rate) for _ in range(channels)]
        self._fresh = True

    def read(self, chunk: bytes) -> list[Pcm]:
        """Samples at 16 kHz, one array per channel. `chunk` must hold complete frames."""
        if self._fresh and chunk.startswith(b"RIFF"):
            chunk = chunk[_WAV_HEADER_BYTES:]
        self._fresh = False
        samples = self._decode(chunk).reshape(-1, self._channels)
        return [
            resampler.feed(samples[:, channel])
            for channel, resampler in enumerate(self._resamplers)
        ]

    def _decode(self, chunk: bytes) -> Pcm:
        raw = np.frombuffer(chunk, np.uint8)
        if self._encoding == "wav/alaw":
            return _ALAW[raw]
        if self._encoding == "wav/ulaw":
            return _ULAW[raw]
        if self.width == 1:
            return ((raw.astype(np.int16) - 128) << 8).astype(np.int16)
        if self.width == _WIDTH_16:
            return np.frombuffer(chunk, "<i2").astype(np.int16)
        # The two highest bytes of a 24 or 32 bit sample are a 16 bit sample.
        high = raw.reshape(-1, self.width)[:, -2:]
        return np.frombuffer(high.tobytes(), "<i2").astype(np.int16)


class Resampler:
    """Streams samples from any rate to 16 kHz; output n lies at input n * rate / 16000."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._window = max(1, rate // SAMPLE_RATE)
        self._kept: npt.NDArray[np.float64] = np.zeros(0)
        self._kept_position = 0
        self._produced = 0

    def feed(self, samples: Pcm) -> Pcm:
        if self._rate == SAMPLE_RATE:
            return samples
        self._kept = np.concatenate((self._kept, samples.astype(np.float64)))
        end = self._kept_position + len(self._kept) - self._window
        count = max(0, end * SAMPLE_RATE // self._rate - self._produced)
        step = self._rate / SAMPLE_RATE
        positions = (self._produced + np.arange(count)) * step - self._kept_position
        smooth = self._kept
        if self._window > 1:
            kernel = np.ones(self._window) / self._window
            smooth = np.convolve(self._kept, kernel, "valid")
        out = np.interp(positions, np.arange(len(smooth)), smooth) if count else np.zeros(0)
        self._produced += count
        drop = max(0, int(self._produced * step) - self._kept_position - 1)
        self._kept = self._kept[drop:]
        self._kept_position += drop
        return out.round().astype(np.int16)


def _alaw_table() -> Pcm:
    code = np.arange(256) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    value = np.where(
        exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0)
    )
    return np.where(code & 0x80, value, -value).astype(np.int16)


def _ulaw_table() -> Pcm:
    code = ~np.arange(256) & 0xFF
    value = (((code & 15) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -value, value).astype(np.int16)


_ALAW = _alaw_table()
_ULAW = _ulaw_table()
