"""Real speech for tests, as 16 kHz samples."""

import io
import subprocess
import wave

import numpy as np
import numpy.typing as npt
import pytest

Pcm = npt.NDArray[np.int16]


def spoken(text: str) -> Pcm:
    """`text` as espeak-ng says it."""
    try:
        done = subprocess.run(
            ["espeak-ng", "-v", "en-us", "--stdout", text], capture_output=True, check=True
        )
    except FileNotFoundError:
        pytest.fail("espeak-ng is missing: apt-get install espeak-ng")
    with wave.open(io.BytesIO(done.stdout)) as sound:
        rate = sound.getframerate()
        # espeak-ng streams its header before it knows the length
        samples = np.frombuffer(sound.readframes(len(done.stdout) // 2), np.int16)
    times = np.arange(int(len(samples) / rate * 16000)) / 16000
    return np.interp(times, np.arange(len(samples)) / rate, samples).astype(np.int16)
