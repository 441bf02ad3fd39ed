"""What breaks in `dev.chaos`: all parts of a meeting, and the ways to break each."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from dev import livekit as livekit_dev
from dev.gladia import GladiaStandIn
from dev.gladia.faults import (
    Acks,
    Drop,
    Fault,
    Finals,
    HangPost,
    Mute,
    RefuseHandshake,
    RefusePost,
    Say,
    Stall,
)
from dev.livekit import LiveKitServer, Ports
from dev.passage import Passage, open_passage
from dev.processes import Child

ROOT: Final = Path(__file__).parent.parent
API_KEY: Final = "chaoskey"
API_SECRET: Final = "chaossecret-chaossecret-chaossecret"  # noqa: S105 - opens a loopback server
_READY_WITHIN_S: Final = 60.0

_ENDED: Final = Drop(how=4403, end_session=True)
GLADIA_FAULTS: Final[tuple[tuple[Fault, ...], ...]] = (
    (Drop(how="reset"),) * 3,
    (Drop(how="fin"),) * 3,
    (Drop(how=1001), Drop(how=1011), Drop(how=1009)),
    (Drop(how=4500), Drop(how=4000)),
    (Drop(how="reset", end_session=True),) * 2,
    (Stall(for_s=8.0),) * 2,
    (Mute(),),
    (Acks(how="delay", count=10, delay_s=2.0), Acks(how="lose", count=3)),
    (Acks(how="merge", count=5), Acks(how="double", count=5)),
    (RefusePost(status=429, retry_after_s=1.0), RefusePost(status=503), _ENDED),
    (HangPost(), _ENDED),
    (RefuseHandshake(status=503), Drop(how="reset")),
    (Finals(how="double"), Finals(how="only_result"), Finals(how="late_interim")),
    (Say(frame="{"), Say(frame='{"type":"weather"}'), Say(frame=b"\x00")),
)


@dataclass(slots=True, kw_only=True)
class Arena:
    """The parts that break, and how to break them."""

    room: str
    server: LiveKitServer
    ports: Ports
    binary: Path
    gladia: GladiaStandIn
    passage: Passage
    environment: Mapping[str, str]
    state_dir: Path
    longest_outage_s: float = 15.0
    """Of PostgreSQL."""
    workers: list[Child] = field(default_factory=list)
    everyone: list[Child] = field(default_factory=list)
    """Every worker that ever was."""

    async def start_worker(self) -> None:
        child = Child(
            f"worker {len(self.everyone)}",
            [sys.executable, "-u", "agent.py", "start"],
            env=self.environment,
            cwd=ROOT,
        )
        self.workers.append(child)
        self.everyone.append(child)
        await asyncio.to_thread(child.wait_for, "registered worker", _READY_WITHIN_S)

    async def gladia_fault(self, chance: random.Random) -> None:
        self.gladia.faults.add(*chance.choice(GLADIA_FAULTS))

    async def gladia_restart(self, chance: random.Random) -> None:
        await self.gladia.restart(forget=chance.random() < 0.5, down_s=chance.uniform(0.5, 3))  # noqa: PLR2004

    async def store_away(self, chance: random.Random) -> None:
        await self.passage.close()
        await asyncio.sleep(chance.uniform(4, self.longest_outage_s))
        await self.passage.open()

    async def store_frozen(self, chance: random.Random) -> None:
        self.passage.freeze()
        await asyncio.sleep(chance.uniform(3, 7))
        self.passage.thaw()

    async def store_cut(self, chance: random.Random) -> None:
        self.passage.cut_after_bytes = chance.randrange(1, 20_000)

    async def store_slow(self, chance: random.Random) -> None:
        self.passage.delay_s = chance.uniform(0.05, 0.3)
        await asyncio.sleep(5)
        self.passage.delay_s = 0.0

    async def kill_job(self, _: random.Random) -> None:
        for worker in self.workers:
            pid = job_pid(worker, self.room)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    async def kill_worker(self, chance: random.Random) -> None:
        worker = chance.choice(self.workers)
        self.workers.remove(worker)
        worker.signal(signal.SIGKILL)
        await self.start_worker()

    async def rolling_restart(self, _: random.Random) -> None:
        await self.start_worker()
        worker = self.workers.pop(0)
        worker.signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, 40)

    async def livekit_restart(self, _: random.Random) -> None:
        self.server.stop()
        await asyncio.sleep(1)
        self.server = await asyncio.to_thread(start_livekit, self.binary, self.ports)

    def deeds(self) -> dict[str, tuple[int, Callable[[random.Random], Awaitable[None]]]]:
        """What may be done, with its weight."""
        return {
            "gladia fault": (8, self.gladia_fault),
            "gladia restart": (2, self.gladia_restart),
            "postgres away": (2, self.store_away),
            "postgres frozen": (1, self.store_frozen),
            "postgres cut": (2, self.store_cut),
            "postgres slow": (1, self.store_slow),
            "job killed": (2, self.kill_job),
            "worker killed": (2, self.kill_worker),
            "rolling restart": (1, self.rolling_restart),
            "livekit restart": (1, self.livekit_restart),
        }


def job_pid(worker: Child, room: str) -> int | None:
    """The living process that serves `room`, by the worker's log."""
    for line in reversed(worker.output.splitlines()):
        if not line.startswith("{"):
            continue
        record = json.loads(line)
        if record.get("room") == room and record["logger"] == "agent.room":
            pid = int(record["pid"])
            return pid if psutil.pid_exists(pid) else None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a worker holds, with everything it started."""

    memory_mb: float
    """Shared pages count in part."""
    processes: int
    descriptors: int
    """Of its main process: files, sockets, pipes."""

    @classmethod
    def of(cls, worker: Child) -> "Footprint":
        main = psutil.Process(worker.pid)
        processes = [main, *main.children(recursive=True)]
        total = 0
        for process in processes:
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return cls(memory_mb=total / 1e6, processes=len(processes), descriptors=main.num_fds())

    def excess(self, fresh: "Footprint") -> list[str]:
        """What is more than a fresh worker holds, with room for caches and a warm process."""
        found = []
        if self.memory_mb > fresh.memory_mb * 1.25 + 20:
            found.append(f"{self.memory_mb:.0f} MB, fresh {fresh.memory_mb:.0f}")
        if self.processes > fresh.processes + 1:
            found.append(f"{self.processes} processes, fresh {fresh.processes}")
        if self.descriptors > fresh.descriptors + 20:
            found.append(f"{self.descriptors} descriptors, fresh {fresh.descriptors}")
        return found


def left_files(state_dir: Path) -> list[str]:
    """Files that only a room in use may have."""
    places = ("heard", "gladia-slots/open", "gladia-slots/spill")
    return [
        str(path.relative_to(state_dir))
        for place in places
        for path in (state_dir / place).glob("*")
    ]


def start_livekit(binary: Path, ports: Ports) -> LiveKitServer:
    sections = {
        "rtc": {"node_ip": "127.0.0.1"},
        "webhook": {"urls": []},
        "room": {"departure_timeout": 3},
    }
    return livekit_dev.start(
        binary, api_key=API_KEY, api_secret=API_SECRET, ports=ports, overrides=sections
    )


@asynccontextmanager
async def open_arena(
    binary: Path, socket: Path, database: str, state_dir: Path, room: str
) -> AsyncIterator[Arena]:
    """All parts, two workers, in order; stopped in reverse, nothing by force but LiveKit."""
    ports = Ports.free()
    async with AsyncExitStack() as stack:
        passage = await stack.enter_async_context(open_passage(socket))
        gladia = await stack.enter_async_context(GladiaStandIn())
        server = await asyncio.to_thread(start_livekit, binary, ports)
        url = f"postgresql://roomscribe@127.0.0.1:{passage.port}/{database}?sslmode=disable"
        environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - composition root
            "HOME": str(state_dir),
            **server.env(),
            "DATABASE_URL": url,
            "GLADIA_API_KEY": gladia.api_key,
            "GLADIA_API_URL": gladia.base_url,
            "ROOMSCRIBE_DATA_DIR": str(state_dir),
            "TRANSCRIPT_BATCH_SECONDS": "0.5",
            "HEALTH_PORT": "0",
            "METRICS_PORT": "0",
        }
        arena = Arena(
            room=room,
            server=server,
            ports=ports,
            binary=binary,
            gladia=gladia,
            passage=passage,
            environment=environment,
            state_dir=state_dir,
        )
        stack.callback(lambda: arena.server.stop())
        stack.push_async_callback(_stop_workers, arena)
        await arena.start_worker()
        await arena.start_worker()
        yield arena


async def _stop_workers(arena: Arena) -> None:
    for child in arena.everyone:
        await asyncio.to_thread(child.stop, 40.0)
