"""One session, many viewers: our hub beside a Node `ws` server that does the same work.

`python -m bench.fanout [--viewers 1000] [--rate 20] [--seconds 60] [--rounds 2]`. Both servers get
the same messages from the same sender and the same viewers, one server after the other in each
round; the table says what each spent and lost. Needs `node` and `npm` (for `ws`, which is put into
the cache directory) and a PostgreSQL by DATABASE_URL, else the embedded one.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil

from dev.livekit import cache_dir
from dev.processes import free_port

WS_VERSION = "8.18.3"
SECRET = "bench-secret-bench-secret-bench-secret"  # noqa: S105 - of a server that lives a minute
PATH = "/api/realtime/transcribe"
_HERE = Path(__file__).parent
_SAMPLED = 20
"""One viewer in so many measures latency; the others count."""


@dataclass(slots=True)
class Result:
    """What one server did in one round."""

    cpu_share: float
    """Of one core."""
    latencies_ms: list[float]
    received: int
    expected: int


@dataclass(slots=True)
class Target:
    """A server under test."""

    name: str
    pid: int
    broadcast_url: str
    headers: dict[str, str]
    port: int
    open_session: Callable[[], Awaitable[tuple[str, str]]]
    """Makes a session; gives the WebSocket's path with query, and the slug."""
    host: str = "127.0.0.1"


@dataclass(slots=True)
class Tally:
    """What all viewers of a round saw."""

    received: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    open: int = 0


class Viewer(asyncio.Protocol):
    """A client as cheap as can be: reads frame headers and counts lines."""

    def __init__(self, path: str, tally: Tally, *, measures: bool) -> None:
        self._path = path
        self._tally = tally
        self._measures = measures
        self._buffer = bytearray()
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            assert b" 101 " in head.split(b"\r\n", 1)[0], head
            self._upgraded = True
            self._tally.open += 1
            self._buffer = bytearray(rest)
        self._read_frames()

    def _read_frames(self) -> None:
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= 2:
            size, header = buffer[at + 1], 2
            if size == 126:
                if len(buffer) - at < 4:
                    break
                size, header = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
            end = at + header + size
            if len(buffer) < end:
                break
            if buffer.startswith(b'{"type":"transcript"', at + header):
                self._tally.received += 1
                if self._measures:
                    self._measure(bytes(buffer[at + header : end]))
            at = end
        del buffer[:at]

    def _measure(self, payload: bytes) -> None:
        sent_ns = int(json.loads(payload)["text"].split()[0])
        self._tally.latencies_ms.append((time.monotonic_ns() - sent_ns) / 1e6)


async def run(target: Target, *, viewers: int, rate: float, seconds: float) -> Result:
    """One server, all viewers, `seconds` of messages."""
    tally = Tally()
    path, slug = await target.open_session()
    loop = asyncio.get_running_loop()
    transports = []
    for number in range(viewers):
        measures = number % _SAMPLED == 0
        transport, _ = await loop.create_connection(
            lambda measures=measures: Viewer(path, tally, measures=measures),  # type: ignore[misc]  # bound now
            target.host,
            target.port,
        )
        transports.append(transport)
    while tally.open < viewers:  # noqa: ASYNC110 - plain protocols
        await asyncio.sleep(0.05)
    process = psutil.Process(target.pid)
    before, began = _cpu_s(process), time.monotonic()
    sent = await _send(target, slug, rate=rate, seconds=seconds)
    spent, took = _cpu_s(process) - before, time.monotonic() - began
    deadline = time.monotonic() + 10
    while tally.received < sent * viewers and time.monotonic() < deadline:  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.05)
    for transport in transports:
        transport.close()
    await asyncio.sleep(0.5)
    return Result(spent / took, tally.latencies_ms, tally.received, sent * viewers)


async def _send(target: Target, slug: str, *, rate: float, seconds: float) -> int:
    total = int(rate * seconds)
    begin = time.monotonic()
    async with httpx.AsyncClient(headers=target.headers, timeout=30) as http:
        for number in range(total):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            message = {
                "type": "transcript",
                "sessionSlug": slug,
                "utteranceId": f"u{number}",
                "text": f"{time.monotonic_ns()} a line of about the usual length, as people speak",
                "isFinal": True,
                "speaker": "Ann",
                "speakerId": "guest-ann",
                "ts": "2026-01-01T00:00:00.000Z",
                "rev": 1,
            }
            answer = await http.post(target.broadcast_url, json=message)
            answer.raise_for_status()
    return total


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def ours(home: str) -> AsyncIterator[Target]:
    """`python -m web` as it ships."""
    port = free_port()
    env = {
        "DATABASE_URL": f"embedded://{home}",
        **os.environ,
        "PORT": str(port),
        "SERVER_MODE": "ws",
        "LIVEKIT_URL": "ws://127.0.0.1:9",
        "LIVEKIT_API_KEY": "bench",
        "LIVEKIT_API_SECRET": SECRET,
        "SERVICE_SECRET": SECRET,
        "RATE_LIMIT_FACTOR": "0",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "web", env=env)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url) as http:
            await until_up(http)

            async def open_session() -> tuple[str, str]:
                slug = (await http.post("/api/sessions", json={})).json()["slug"]
                answer = await http.get(f"/api/sessions/{slug}/transcription/token")
                return f"{PATH}?token={answer.json()['token']}&sessionSlug={slug}", slug

            yield Target(
                name="ours",
                pid=process.pid,
                broadcast_url=f"{url}{PATH}/broadcast",
                headers={"authorization": f"Bearer {SECRET}"},
                port=port,
                open_session=open_session,
            )
    finally:
        process.terminate()
        await process.wait()


async def until_up(http: httpx.AsyncClient) -> None:
    """Waits at most a minute for the service to answer."""
    async with asyncio.timeout(60):
        while True:
            try:
                (await http.get("/health/live")).raise_for_status()
            except httpx.HTTPError:
                await asyncio.sleep(0.2)
            else:
                return


@asynccontextmanager
async def node() -> AsyncIterator[Target]:
    """The Node server, with `ws` from the npm registry."""
    home = cache_dir(os.environ) / f"bench-ws-{WS_VERSION}"
    if not (home / "node_modules" / "ws").is_dir():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(  # noqa: ASYNC221 - before anything is measured
            ["npm", "install", "--no-save", "--prefix", str(home), f"ws@{WS_VERSION}"], check=True
        )
    script = home / "server.mjs"
    shutil.copy(_HERE / "fanout_node.mjs", script)
    process = await asyncio.create_subprocess_exec(
        "node", str(script), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        yield Target(
            name="Node ws",
            pid=process.pid,
            broadcast_url=f"http://127.0.0.1:{port}/broadcast",
            headers={},
            port=port,
            open_session=_nothing_to_open,
        )
    finally:
        process.terminate()
        await process.wait()


async def _nothing_to_open() -> tuple[str, str]:
    return "/", "bench"


async def compare(*, viewers: int, rate: float, seconds: float, rounds: int) -> int:
    """Runs all rounds and prints the table; 1 if anything was lost."""
    results: dict[str, list[Result]] = {"ours": [], "Node ws": []}
    with TemporaryDirectory(prefix="roomscribe-bench-") as home:
        Path(home).chmod(0o711)  # noqa: ASYNC240 - before anything is measured
        async with ours(home) as first, node() as second:
            for _ in range(rounds):
                for target in (first, second):
                    found = await run(target, viewers=viewers, rate=rate, seconds=seconds)
                    results[target.name].append(found)
    print(f"\n{viewers} viewers, {rate:g} messages/s, {rounds} x {seconds:g} s each")
    print(f"{'server':10} {'CPU of a core':>14} {'p50 ms':>8} {'p99 ms':>8} {'lost':>6}")
    rows = {name: _row(found) for name, found in results.items()}
    for name, (cpu, p50, p99, lost) in rows.items():
        print(f"{name:10} {cpu:>13.1%} {p50:>8.1f} {p99:>8.1f} {lost:>6}")
    mine, theirs = rows["ours"], rows["Node ws"]
    ratios = [ours / node for ours, node in zip(mine[:3], theirs[:3], strict=True)]
    print(f"{'ratio':10} {ratios[0]:>13.2f}x {ratios[1]:>7.2f}x {ratios[2]:>7.2f}x")
    return 1 if mine[3] else 0


def _row(results: list[Result]) -> tuple[float, float, float, int]:
    latencies = [latency for result in results for latency in result.latencies_ms]
    cuts = statistics.quantiles(latencies, n=100)
    cpu = statistics.mean(result.cpu_share for result in results)
    return cpu, cuts[49], cuts[98], sum(r.expected - r.received for r in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    return asyncio.run(compare(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
