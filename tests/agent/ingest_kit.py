"""Sound for the ingest tests, made by the real encoders at test time."""

import asyncio
import functools
import itertools
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from agent.ingest.decoder import Decoder, find_decoder
from core.rtmp import AudioTag
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


class DecodingSink:
    """A publish's sink that decodes for real and keeps the PCM."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.tape = Tape()
        self.faults: Counter[str] = Counter()
        self.ended: list[bool] = []
        self.tags = 0
        self.decoder = Decoder(
            find_decoder(), self.tape.push, lambda kind: self.faults.update([kind])
        )
        self.task = group.create_task(self.decoder.run(), name="decoder")

    def feed(self, tag: AudioTag) -> None:
        self.tags += 1
        self.decoder.feed(tag)

    async def ready(self) -> None:
        await self.decoder.ready()

    def end(self, *, clean: bool) -> None:
        self.ended.append(clean)
        self.decoder.finish()


class OpenGate:
    """Lets in whoever names a session of `keys` with its token, and keeps all sinks."""

    def __init__(self, group: asyncio.TaskGroup, keys: dict[str, str] | None = None) -> None:
        self._group = group
        self.keys = keys
        self.sinks: dict[str, list[DecodingSink]] = {}
        self.asked: list[str] = []

    async def authorize(self, slug: str, token: str) -> bool:
        self.asked.append(slug)
        return self.keys is None or self.keys.get(slug) == token

    def open(self, slug: str) -> DecodingSink:
        sink = DecodingSink(self._group)
        self.sinks.setdefault(slug, []).append(sink)
        return sink

    def tape(self, slug: str) -> Tape:
        return self.sinks[slug][-1].tape


class Publisher:
    """A publisher made of dev.rtmp's bytes, in real time or as fast as wanted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.answers = bytearray()

    @classmethod
    async def connect(cls, port: int, name: str, app: str = "session") -> "Publisher":
        publisher = cls(*await asyncio.open_connection("127.0.0.1", port))
        publisher.writer.write(rtmp.publish(name, app=app))
        return publisher

    async def answer(self, word: bytes, timeout_s: float = 5.0) -> bool:
        """Whether `word` is among the answers before the connection ends."""
        async with asyncio.timeout(timeout_s):
            while word not in self.answers:
                data = await self.reader.read(4096)
                if not data:
                    return False
                self.answers += data
        return True

    async def play(
        self, tags: Sequence[tuple[int, bytes]], *, start_ms: int = 0, speed: float = 1.0
    ) -> None:
        """Sends tags in (accelerated) real time, their stamps moved by `start_ms`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at_ms, body in tags:
            delay = began + at_ms / 1000 / speed - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            self.writer.write(rtmp.audio(at_ms + start_ms if body[1] else 0, body))
            await self.writer.drain()

    async def close(self, *, goodbye: bool = True) -> None:
        if goodbye:
            self.writer.write(rtmp.unpublish())
            await self.writer.drain()
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


def ffmpeg_publisher(url: str, seconds: float) -> list[str]:
    tone = f"sine=frequency=440:sample_rate=44100:duration={seconds}"
    return [
        *(needed("ffmpeg", FFMPEG_HINT), "-nostdin", "-loglevel", "error", "-re"),
        *("-f", "lavfi", "-i", tone, "-c:a", "aac", "-b:a", "64k", "-f", "flv", url),
    ]


def gstreamer_publisher(url: str, seconds: float) -> list[str]:
    """The sink and muxer of LiveKit Egress, with its encoder's free sister."""
    buffers = int(seconds * 16_000 / 1024)
    source = f"audiotestsrc is-live=true freq=440 num-buffers={buffers} samplesperbuffer=1024"
    chain = f"{source} ! audio/x-raw,rate=16000,channels=2 ! voaacenc bitrate=48000 ! aacparse"
    return [
        *(needed("gst-launch-1.0", GST_HINT), "-q"),
        *f"{chain} ! flvmux streamable=true ! rtmp2sink location={url}".split(),
    ]


async def run_program(command: Sequence[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
