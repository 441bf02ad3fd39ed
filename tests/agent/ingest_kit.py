"""Sound for the ingest tests, made by the real encoders at test time."""

import asyncio
import functools
import itertools
import shutil
import subprocess

import numpy as np
import numpy.typing as npt

from dev import rtmp

FFMPEG_HINT = "ffmpeg is not installed: apt-get install ffmpeg"
GST_HINT = (
    "GStreamer is not installed: apt-get install gstreamer1.0-tools "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)


def needed(binary: str, hint: str) -> str:
    """Path of a program that the proof cannot do without."""
    path = shutil.which(binary)
    assert path is not None, hint
    return path


@functools.cache
def aac_tags(
    seconds: float, rate_hz: int = 16_000, channels: int = 2
) -> tuple[tuple[int, bytes], ...]:
    """A sweep of tones as FLV audio tags; the first is the header.

    The tone steps every half second, so that its frequency says where in the sound we are.
    """
    tone = f"aevalsrc='0.5*sin(2*PI*t*(200+100*floor(2*t)))':s=48000:d={seconds}"
    command = [needed("ffmpeg", FFMPEG_HINT), "-loglevel", "error", "-f", "lavfi", "-i", tone]
    command += ["-ar", str(rate_hz), "-ac", str(channels), "-c:a", "aac", "-b:a", "48k"]
    made = subprocess.run([*command, "-f", "flv", "pipe:1"], capture_output=True, check=True)
    return tuple(rtmp.read_flv_audio(made.stdout))


def tone_at(pcm: bytes, second: float) -> float:
    """The loudest frequency in Hz in the 0.2 s around `second`."""
    samples: npt.NDArray[np.int16] = np.frombuffer(pcm, "<i2")
    at = int(second * 16_000)
    window = samples[at - 1600 : at + 1600].astype(float) * np.hanning(3200)
    spectrum = np.abs(np.fft.rfft(window))
    return float(np.argmax(spectrum) * 16_000 / 3200)


def loudness(pcm: bytes, start_s: float, end_s: float) -> float:
    """Root mean square, 0..32767."""
    samples = np.frombuffer(pcm, "<i2")[int(start_s * 16_000) : int(end_s * 16_000)]
    return float(np.sqrt(np.mean(samples.astype(float) ** 2))) if len(samples) else 0.0


class Tape:
    """Collects PCM by position and proves that it is one unbroken line."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self.jumps: list[int] = []
        self.arrivals: list[float] = []

    def push(self, position: int, pcm: bytes) -> None:
        at = len(self.pcm) // 2
        assert position >= at, "the position went back"
        if position > at:
            self.jumps.append(position - at)
            self.pcm += bytes((position - at) * 2)
        self.pcm += pcm
        self.arrivals.append(asyncio.get_running_loop().time())

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 32_000

    def longest_gap_s(self, since: float = 0.0) -> float:
        times = [at for at in self.arrivals if at >= since]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


async def until(condition: object, timeout_s: float = 10.0) -> None:
    """Polls `condition` until it is true."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - a test's deadline poll
            await asyncio.sleep(0.01)
