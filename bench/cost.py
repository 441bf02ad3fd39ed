"""What a room costs: our job beside bare WebRTC reception and an AgentSession per participant.

One LiveKit server, one Gladia stand-in, one room with four participants who count aloud, are
silent, or are muted. One job after the other serves it, each as a real job process of the
framework. Measured is the CPU time of the job's processes, not of the worker's main process, and
the memory (PSS) of everything for each further room.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import psutil

from dev import livekit, watermark
from dev.livekit import LiveKitServer, Ports
from dev.processes import Child
from dev.robot import Robot, open_robot

ROOT: Final = Path(__file__).parent.parent
PEOPLE: Final = 4
SETTLE_S: Final = 6.0
KEY: Final = "benchkey"
SECRET: Final = "benchsecret-benchsecret-benchsecret!"  # noqa: S105 - opens a loopback server

Scene = Literal["speaking", "silent", "muted"]
SCENES: Final[tuple[Scene, ...]] = ("speaking", "silent", "muted")
Job = Literal["receive", "stream", "ours", "session"]
JOBS: Final[dict[Job, str]] = {
    "receive": "(0) subscribed, nothing read",
    "stream": "(a) received, frames dropped",
    "ours": "(b) ours",
    "session": "(c) AgentSession each",
}
TO_RECEPTION: Final[dict[Scene, float]] = {"speaking": 1.6, "silent": 1.7, "muted": 1.1}
TO_SESSION: Final[dict[Scene, float]] = {"speaking": 0.38, "silent": 0.4}
"""Largest ratio of (b) to (a) and to (c)."""
MEMORY_MIB: Final = {"process": 25.0, "thread": 5.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """What all jobs of one run share."""

    server: LiveKitServer
    env: dict[str, str]

    def start(self, job: Job, rooms: Sequence[str], **variables: str) -> Child:
        argv = {
            "ours": ["agent.py", "connect", *rooms],
        }.get(job, ["-m", "bench.cost_jobs", job, *rooms])
        return Child(job, [sys.executable, "-u", *argv], env=self.env | variables, cwd=ROOT)

    def worker(self, executor: str) -> Child:
        """Our worker, which serves every room that appears."""
        env = self.env | {"AGENT_EXECUTOR": executor}
        return Child("worker", [sys.executable, "-u", "agent.py", "start"], env=env, cwd=ROOT)


@contextmanager
def open_stage() -> Iterator[Stage]:
    """A LiveKit server and a stand-in for Gladia, both in processes of their own."""
    binary = livekit.ensure_binary(os.environ, print)
    with TemporaryDirectory(prefix="roomscribe-bench-") as home:
        Path(home).chmod(0o711)  # root's PostgreSQL runs as another account, which must get in
        sections = {"rtc": {"node_ip": "127.0.0.1"}, "webhook": {"urls": []}}
        server = livekit.start(
            binary, api_key=KEY, api_secret=SECRET, ports=Ports.free(), overrides=sections
        )
        base = {"PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-u", "-m", "dev.gladia", "--ear", "watermark"]
        gladia = Child("gladia", argv, env=base, cwd=ROOT)
        try:
            address = gladia.wait_for(r"http://\S+", 20).strip()
            yield Stage(
                server,
                base
                | server.env()
                | {
                    "GLADIA_API_KEY": "stand-in",
                    "GLADIA_API_URL": address,
                    "GLADIA_LANGUAGES": "en",
                    "DATABASE_URL": f"embedded://{home}/postgres",
                    "ROOMSCRIBE_DATA_DIR": f"{home}/data",
                    "HEALTH_PORT": "0",
                    "METRICS_PORT": "0",
                },
            )
        finally:
            gladia.stop(5)
            server.stop()


@asynccontextmanager
async def open_people(server: LiveKitServer, room: str, count: int) -> AsyncIterator[list[Robot]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_robot(server.url, server.token(room, f"guest-{number}"))
            )
            for number in range(count)
        ]


async def act(people: Sequence[Robot], scene: Scene, duration_s: float) -> None:
    """Everybody does the same for `duration_s`."""
    for person in people:
        await person.set_muted(scene == "muted")
    if scene != "speaking":
        await asyncio.sleep(duration_s)
        return
    async with asyncio.TaskGroup() as tasks:
        for number, person in enumerate(people):
            # sentences of nine words, then a breath that closes the gate
            words = int(duration_s / 0.82)
            recording = watermark.encode(
                range(words), number, period_s=0.6, pause_every=9, pause_s=2.0, tail_s=0.0
            )
            tasks.create_task(person.say(recording.pcm), name=f"speaking:{number}")


def cpu_s(main: psutil.Process) -> dict[int, float]:
    """CPU seconds of the job's processes, by process."""
    seconds = {}
    for child in main.children(recursive=True):
        try:
            times = child.cpu_times()
            if not is_database(child):
                seconds[child.pid] = times.user + times.system
        except psutil.Error:
            continue
    return seconds


def is_database(process: psutil.Process) -> bool:
    return any("postgres" in word for word in (process.name(), *process.cmdline()[:3]))


def pss_bytes(main: psutil.Process) -> int:
    """Memory of the worker and all its jobs; pages that they share count once."""
    total = 0
    for process in (main, *main.children(recursive=True)):
        try:
            if not is_database(process):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


async def measure(job: Child, people: Sequence[Robot], scene: Scene, duration_s: float) -> float:
    """Share of one core, in percent, while the scene goes on."""
    main = psutil.Process(job.pid)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(act(people, scene, duration_s + SETTLE_S + 1), name="scene")
        await asyncio.sleep(SETTLE_S)
        before, began = cpu_s(main), time.monotonic()
        await asyncio.sleep(duration_s)
        after, took = cpu_s(main), time.monotonic() - began
    used = sum(after[pid] - before.get(pid, 0.0) for pid in after if pid in before)
    return 100 * used / took


async def heard_by(people: Sequence[Robot]) -> None:
    async with asyncio.timeout(40):
        for person in people:
            await person.heard.wait()


def check_captions(job: Job, count: int) -> None:
    """A job that does not do its work must not win."""
    print(f"    captions seen: {count}")
    if job in {"ours", "session"} and count < PEOPLE:
        raise SystemExit(f"{JOBS[job]} did not transcribe")


async def cpu_table(stage: Stage, duration_s: float, rounds: int) -> dict[Job, dict[Scene, float]]:
    """Each job's CPU in each scene: the least of the rounds, since a busy machine only adds."""
    samples: dict[Job, dict[Scene, list[float]]] = {
        job: {scene: [] for scene in SCENES} for job in JOBS
    }
    for number in range(rounds):
        for job in JOBS:
            room = f"cost-{number}-{job}"
            async with open_people(stage.server, room, PEOPLE) as people:
                child = stage.start(job, [room])
                try:
                    await heard_by(people)
                    await asyncio.sleep(5)
                    for scene in SCENES:
                        share = await measure(child, people, scene, duration_s)
                        samples[job][scene].append(share)
                        print(f"  round {number + 1} {JOBS[job]:30} {scene:9} {share:5.1f} %")
                    check_captions(job, len(people[0].captions.items))
                except TimeoutError:
                    print(child.output)
                    raise
                finally:
                    await asyncio.to_thread(child.stop, 20)
    return {
        job: {scene: min(values) for scene, values in scenes.items()}
        for job, scenes in samples.items()
    }


def print_cpu(table: dict[Job, dict[Scene, float]]) -> bool:
    """The table with ratios; True if every target holds."""
    print(f"\nCPU of the job, {PEOPLE} participants in one room, % of a core (per participant)\n")
    print("| | " + " | ".join(SCENES) + " |")
    print("|---|" + "---|" * len(SCENES))
    for job, title in JOBS.items():
        cells = [f"{table[job][s]:.1f} ({table[job][s] / PEOPLE:.1f})" for s in SCENES]
        print(f"| {title} | " + " | ".join(cells) + " |")
    good = True
    for other, targets in _ratios():
        cells = []
        for scene in SCENES:
            ratio = table["ours"][scene] / table[other][scene]
            target = targets.get(scene)
            good &= target is None or ratio <= target
            wanted = "" if target is None else f" (wanted: {target})"
            cells.append(f"{ratio:.2f}{wanted}")
        print(f"| (b) / {JOBS[other][:3]} | " + " | ".join(cells) + " |")
    return good


def _ratios() -> list[tuple[Job, dict[Scene, float]]]:
    return [("receive", {}), ("stream", TO_RECEPTION), ("session", TO_SESSION)]


async def memory_per_room(stage: Stage, executor: str) -> float:
    """MiB that the second and third room add, each with somebody who speaks."""
    child = stage.worker(executor)
    try:
        await asyncio.to_thread(child.wait_for, "registered worker", 60)
        async with AsyncExitStack() as stack:
            sizes = []
            for number in range(3):
                room = f"memory-{executor}-{number}"
                people = await stack.enter_async_context(open_people(stage.server, room, 1))
                await heard_by(people)
                await act(people, "speaking", 8)
                await asyncio.sleep(4)
                sizes.append(pss_bytes(psutil.Process(child.pid)) / 2**20)
            print(f"  {executor}: " + ", ".join(f"{size:.0f} MiB" for size in sizes))
            return (sizes[2] - sizes[0]) / 2
    finally:
        await asyncio.to_thread(child.stop, 30)


def print_memory(per_room: dict[str, float]) -> bool:
    print("\nMemory (PSS of worker and jobs) of each further room with one speaker\n")
    print("| executor | MiB per room | wanted |\n|---|---|---|")
    for executor, size in per_room.items():
        print(f"| {executor} | {size:.1f} | {MEMORY_MIB[executor]} |")
    return all(size <= MEMORY_MIB[executor] for executor, size in per_room.items())


def main() -> None:
    """Prints the tables; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="per scene and job")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with open_stage() as stage:
        table = asyncio.run(cpu_table(stage, options.seconds, options.rounds))
        memory = {kind: asyncio.run(memory_per_room(stage, kind)) for kind in MEMORY_MIB}
    good = print_cpu(table)
    good &= print_memory(memory)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
