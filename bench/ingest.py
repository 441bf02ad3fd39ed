"""What a stream costs: our acceptor with its decoder, beside ffmpeg pulling from nginx-rtmp.

`python -m bench.ingest [streams] [seconds]`: both ways in one run, publishers not counted. CPU is
that of the server and of its decoders, in per cent of one core and stream; "first PCM" is from
the publisher's first tag to our first sample (publish command and process start included).
"""

import asyncio
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from agent.ingest.acceptor import Acceptor
from agent.ingest.decoder import Decoder, find_decoder, pull_command
from core.rtmp import AudioTag
from dev.processes import Child, free_port

MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
CONFIG = """
load_module {module};
daemon off; master_process off; worker_processes 1;
pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; ack_window 16384;
  application session {{ live on; record off; }} }} }}
"""


@dataclass
class Result:
    """One way's figures."""

    name: str
    first_pcm_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    seconds: float = 0.0
    rss_mb: float = 0.0

    def row(self, streams: int) -> str:
        cpu = 100 * self.cpu_s / self.seconds / streams
        return (
            f"{self.name:<34}{cpu:>8.2f} %{median(self.first_pcm_s):>10.3f} s"
            f"{max(self.first_pcm_s):>10.3f} s{self.rss_mb:>9.0f} MB"
        )


def tree_cpu_s(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


async def publisher(url: str) -> asyncio.subprocess.Process:
    """AAC 16 kHz stereo 48 kbit/s in real time: what Egress sends when we ask it."""
    ffmpeg = shutil.which("ffmpeg")
    assert ffmpeg is not None, "apt-get install ffmpeg"
    tone = ("-f", "lavfi", "-i", "sine=frequency=300:sample_rate=16000:duration=3600")
    coded = ("-ac", "2", "-c:a", "aac", "-b:a", "48k", "-flush_packets", "1", "-f", "flv", url)
    arguments = ("-nostdin", "-loglevel", "error", "-re", *tone, *coded)
    return await asyncio.create_subprocess_exec(ffmpeg, *arguments, stderr=DEVNULL)


async def measured(
    result: Result, processes: Callable[[], list[psutil.Process]], seconds: float
) -> None:
    """Measures the steady state of what runs now."""
    before, began = tree_cpu_s(processes()), time.monotonic()
    await asyncio.sleep(seconds)
    result.cpu_s = tree_cpu_s(processes()) - before
    result.seconds = time.monotonic() - began
    result.rss_mb = sum(one.memory_info().rss for one in processes()) / 1e6


class TimedSink:
    """A publish's decoder; notes when the first tag came and when the first PCM."""

    def __init__(self, group: asyncio.TaskGroup, result: Result) -> None:
        self._result = result
        self._began: float | None = None
        self.decoder = Decoder(find_decoder(), self._pcm, lambda _: None)
        self._heard = False
        group.create_task(self.decoder.run(), name="decoder")

    def feed(self, tag: AudioTag) -> None:
        self._began = self._began or time.monotonic()
        self.decoder.feed(tag)

    async def ready(self) -> None:
        await self.decoder.ready()

    def end(self, *, clean: bool) -> None:
        del clean
        self.decoder.finish()

    def _pcm(self, _position: int, _pcm: bytes) -> None:
        if not self._heard and self._began is not None:
            self._heard = True
            self._result.first_pcm_s.append(time.monotonic() - self._began)


class OpenGate:
    """Lets everybody in."""

    def __init__(self, group: asyncio.TaskGroup, result: Result) -> None:
        self._group, self._result = group, result

    async def authorize(self, slug: str, token: str) -> bool:
        del slug, token
        return True

    def open(self, slug: str) -> TimedSink:
        del slug
        return TimedSink(self._group, self._result)


async def ours(streams: int, seconds: float) -> Result:
    """Our port and one ffmpeg for each stream."""
    result = Result("own acceptor, ffmpeg on stdin")
    own = psutil.Process()
    async with asyncio.TaskGroup() as group:
        acceptor = Acceptor(OpenGate(group, result))
        async with acceptor.serving("127.0.0.1", 0) as port:
            others = {child.pid for child in own.children()}
            publishers = [
                await publisher(f"rtmp://127.0.0.1:{port}/session/k{n}") for n in range(streams)
            ]
            others |= {one.pid for one in publishers}
            while len(result.first_pcm_s) < streams:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.05)

            def processes() -> list[psutil.Process]:
                return [own, *(one for one in own.children() if one.pid not in others)]

            await measured(result, processes, seconds)
            for one in publishers:
                one.terminate()
                await one.wait()
    return result


async def pulled(streams: int, seconds: float) -> Result | None:
    """nginx-rtmp and one ffmpeg that pulls each stream; None where nginx-rtmp is missing."""
    nginx = shutil.which("nginx")
    if nginx is None or not MODULE.exists():  # noqa: ASYNC240 - one look
        return None
    result = Result("nginx-rtmp, ffmpeg pulling")
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "nginx.conf"
        config.write_text(CONFIG.format(module=MODULE, home=home, port=port))
        child = Child("nginx", [nginx, "-p", home, "-c", str(config)], env={}, cwd=Path(home))
        await asyncio.sleep(0.5)
        base = f"rtmp://127.0.0.1:{port}/session"
        publishers = [await publisher(f"{base}/k{n}") for n in range(streams)]
        await asyncio.sleep(1.0)
        began = time.monotonic()
        pullers = [
            await asyncio.create_subprocess_exec(
                *pull_command(f"{base}/k{n}"), stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
            )
            for n in range(streams)
        ]
        async with asyncio.TaskGroup() as group:
            readers = [
                group.create_task(drain(one, began, result), name=f"pull:{one.pid}")
                for one in pullers
            ]
            while len(result.first_pcm_s) < streams:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.05)
            pids = [child.pid, *(one.pid for one in pullers)]
            await measured(result, lambda: [psutil.Process(pid) for pid in pids], seconds)
            for one in (*pullers, *publishers):
                one.kill()
                await one.wait()
            for reader in readers:
                reader.cancel()
        await asyncio.to_thread(child.stop, 5)
    return result


async def drain(process: asyncio.subprocess.Process, began: float, result: Result) -> None:
    assert process.stdout is not None
    heard = False
    while await process.stdout.read(65536):
        if not heard:
            heard = True
            result.first_pcm_s.append(time.monotonic() - began)


async def main() -> None:
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    results = [await ours(streams, seconds), await pulled(streams, seconds)]
    print(f"{streams} streams, {seconds:.0f} s each way; goals: 2.5 % and 0.3 s\n")
    print(f"{'':<34}{'CPU/stream':>10}{'first PCM':>12}{'worst':>12}{'RSS':>12}")
    for result in results:
        if result is None:
            print("nginx-rtmp is missing: apt-get install nginx libnginx-mod-rtmp")
        else:
            print(result.row(streams))


if __name__ == "__main__":
    asyncio.run(main())
