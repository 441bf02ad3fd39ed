"""Voice detection, called directly: one speech probability per window of 512 samples.

The framework's VADStream would cost four to ten times as much: a task, an executor hop and copies
per window. Both back ends run the same Silero model; tests hold them against each other.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from core.audio import SAMPLE_RATE
from core.gate import WINDOW_SAMPLES

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.int16]
_SILENCE: Final[npt.NDArray[np.int16]] = np.zeros(WINDOW_SAMPLES, np.int16)
_BEFORE_SOUND: Final = 6
"""Windows of silence with which a detector begins. One that begins in the middle of sound stays
half deaf to that voice for as long as it talks: of 6,640 loud windows of sixteen test voices it
took 25 % for silent, and with these 2 %."""
Backend = Literal["native", "silero"]


class Vad(Protocol):
    """One microphone's voice detector. Not safe to share: it remembers what it heard."""

    def probability(self, window: Samples) -> float:
        """Of speech in the next 512 samples, 0..1. Takes 40 to 200 microseconds."""
        ...

    def reset(self) -> None:
        """Forgets what it heard; call it after a pause that was not shown to it."""
        ...


class NativeVad:
    """Silero in LiveKit's own native library: 0.12 % of a core per speaking microphone."""

    def __init__(self) -> None:
        from livekit.local_inference import VAD

        self._model = VAD()
        _hear_silence(self)

    def probability(self, window: Samples) -> float:
        return self._model.predict(window)

    def reset(self) -> None:
        self._model.reset()
        _hear_silence(self)


class SileroVad:
    """Silero through livekit-plugins-silero and ONNX: 0.5 % of a core per microphone."""

    def __init__(self) -> None:
        from livekit.plugins.silero.onnx_model import OnnxModel

        self._model = OnnxModel(onnx_session=_onnx_session(), sample_rate=SAMPLE_RATE)
        self._scaled = np.zeros(WINDOW_SAMPLES, np.float32)
        _hear_silence(self)

    def probability(self, window: Samples) -> float:
        np.multiply(window, 1 / 32768, out=self._scaled, dtype=np.float32)
        return self._model(self._scaled)

    def reset(self) -> None:
        self._model.reset()
        _hear_silence(self)


def _hear_silence(vad: Vad) -> None:
    for _ in range(_BEFORE_SOUND):
        vad.probability(_SILENCE)


def make_vad(backend: Backend) -> Callable[[], Vad]:
    """What makes the detectors; the ONNX plugin where the native library is missing.

    Call it on the main thread: importing a LiveKit plugin elsewhere raises RuntimeError.
    """
    if backend == "native":
        try:
            import livekit.local_inference
        except ImportError:
            logger.warning("native voice detection is missing here, using livekit-plugins-silero")
        else:
            return NativeVad
    import livekit.plugins.silero.onnx_model  # noqa: F401 - registers the plugin

    return SileroVad


@cache
def _onnx_session() -> Any:
    """The model, once per process; running it is thread-safe, its state is in OnnxModel."""
    from livekit.plugins.silero.onnx_model import new_inference_session

    return new_inference_session(force_cpu=True)
