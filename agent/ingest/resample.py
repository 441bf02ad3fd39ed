"""48 kHz stereo to 16 kHz mono, for Track Egress."""

import numpy as np
import numpy.typing as npt

_TAPS = 60
_FACTOR = 3
_FRAME_BYTES = 4
_CUT = 0.9 / _FACTOR
"""Cut-off as a share of the input's Nyquist frequency: 7.2 kHz."""


def _low_pass() -> npt.NDArray[np.float32]:
    at = np.arange(_TAPS + 1) - _TAPS / 2
    taps = np.sinc(_CUT * at) * np.blackman(_TAPS + 1)
    scaled: npt.NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return scaled


_FILTER = _low_pass()


class Downsampler:
    """Stateful: cut the input anywhere, the output is the same; one sample out for three in."""

    def __init__(self) -> None:
        self._rest = b""
        self._history: npt.NDArray[np.float32] = np.zeros(_TAPS, np.float32)

    def push(self, pcm: bytes) -> bytes:
        """Takes s16le 48 kHz stereo of any length; returns s16le 16 kHz mono."""
        pcm = self._rest + pcm
        frames = len(pcm) // (_FRAME_BYTES * _FACTOR) * _FACTOR
        self._rest = pcm[frames * _FRAME_BYTES :]
        if not frames:
            return b""
        stereo = np.frombuffer(pcm, np.int16, count=frames * 2).reshape(-1, 2)
        mono = np.concatenate((self._history, stereo.mean(axis=1, dtype=np.float32)))
        self._history = mono[-_TAPS:]
        low = np.convolve(mono, _FILTER, "valid")[:frames:_FACTOR]
        return np.clip(np.rint(low), -32768, 32767).astype("<i2").tobytes()
