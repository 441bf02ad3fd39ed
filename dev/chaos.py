"""`make chaos`: six people count while everything breaks, by a seed, and a verdict at the end.

python -m dev.chaos [--minutes 10] [--seed 1]
"""

import argparse
import asyncio
import os
import random
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import asyncpg
from livekit import api, rtc
from livekit.rtc.participant import PublishTrackError

from agent.subscriptions import is_bot
from db.embedded import EmbeddedConfig, EmbeddedPostgres
from db.migrate import load, migrate
from dev import livekit as livekit_dev
from dev.arena import Arena, Footprint, job_pid, left_files, open_arena
from dev.counting import Talker, Verdict, Witness, judge, stored_lines
from dev.robot import Robot, open_robot

PEOPLE: Final = ("maria", "john", "aiko", "priya", "tom", "lena")
_LOOK_EVERY_S: Final = 0.1
_HEARD_WITHIN_S: Final = 60.0
_SETTLE_S: Final = 75.0
"""A dead bot's last line is stored after 30 s, a refused account is asked again after 60."""
_EMPTY_WITHIN_S: Final = 60.0
_LONG_OUTAGE_S: Final = 120.0
_LATE_SHARE: Final = 0.01
"""Of the words may have a wrong time: those around a lost connection, which WebRTC hands on later
than they were spoken and catches up with faster than its delay can be measured."""
_CALM_S: Final = 15.0
"""At the end everybody goes on for this long without a fault."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    verdict: Verdict = field(default_factory=Verdict)
    most_bots: int = 0
    """Listed in the room at the same time."""
    bots: list[str] = field(default_factory=list)
    """Every one that ever was there."""
    without_bot_s: list[float] = field(default_factory=list)
    """How long the room had no bot, each time."""
    deeds: Counter[str] = field(default_factory=Counter)
    memory_mb: tuple[float, float] = (0.0, 0.0)
    """Of a worker and its processes: fresh, and the most after everybody left."""
    left_behind: list[str] = field(default_factory=list)
    """Processes, sockets, sessions, files and memory of a room that is over."""

    @property
    def problems(self) -> dict[str, object]:
        """Empty where every promise was kept."""
        found: dict[str, object] = dict(self.verdict.problems)
        if len(self.verdict.misplaced) <= self.verdict.spoken * _LATE_SHARE:
            found.pop("misplaced", None)
        if self.most_bots > 1:
            found["bots"] = self.most_bots
        if self.left_behind:
            found["left behind"] = self.left_behind
        return found

    def __str__(self) -> str:
        waits = ", ".join(f"{one:.1f}" for one in self.without_bot_s)
        return (
            f"{self.verdict}; bots {len(self.bots)}, at once"
            f" {self.most_bots}, room without one for {waits or 'no'} s; memory"
            f" {self.memory_mb[0]:.0f} -> {self.memory_mb[1]:.0f} MB; {dict(self.deeds)}"
        )


async def rage(arena: Arena, seed: int, duration_s: float, report: Report) -> None:
    """Breaks one thing after the other, as the seed decides; first everything once."""
    chance = random.Random(seed)
    deeds = arena.deeds()
    names, weights = list(deeds), [weight for weight, _ in deeds.values()]
    first = chance.sample(names, len(names))
    until = monotonic() + duration_s
    while monotonic() < until:
        await asyncio.sleep(chance.uniform(3, 9))
        name = first.pop() if first else chance.choices(names, weights)[0]
        report.deeds[name] += 1
        print(f"{until - monotonic():6.1f} s left: {name}", flush=True)
        await deeds[name][1](chance)


class Person:
    """Somebody who counts, mutes, leaves and comes back until told to stop."""

    def __init__(self, number: int, arena: Arena, seed: int) -> None:
        self.talker = Talker(number, PEOPLE[number])
        self._arena = arena
        self._chance = random.Random(f"{seed}-{number}")

    async def live(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._stay(stop)
            except* (rtc.ConnectError, PublishTrackError):
                pass  # the server is away: again in a moment
            await asyncio.sleep(self._chance.uniform(0.5, 4))

    async def _stay(self, stop: asyncio.Event) -> None:
        """From joining to leaving."""
        server, name = self._arena.server, self.talker.identity
        token = server.token(self._arena.room, name, name.title())
        async with open_robot(server.url, token) as robot:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEARD_WITHIN_S):
                    await robot.heard.wait()
            await asyncio.sleep(1)  # the first audio follows the subscription
            for _ in range(self._chance.randrange(4, 12)):
                if stop.is_set() or not robot.room.isconnected():
                    break
                await self._turn(robot)
            await asyncio.sleep(1)  # the last words are on their way

    async def _turn(self, robot: Robot) -> None:
        chance = self._chance
        words = chance.randrange(3, 12)
        await self.talker.count(robot, words, period_s=chance.uniform(0.42, 0.7))
        await asyncio.sleep(0.5)
        deed = chance.random()
        if deed < 0.15:  # noqa: PLR2004 - share of turns
            await robot.set_muted(True)
            await asyncio.sleep(chance.uniform(0.5, 3))
            await robot.set_muted(False)
            await asyncio.sleep(0.5)
        elif deed < 0.25:  # noqa: PLR2004 - share of turns
            kind = rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT
            if chance.random() < 0.5:  # noqa: PLR2004 - one of two
                kind = rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT
            with suppress(Exception):  # a room that is being left does not answer
                async with asyncio.timeout(5):
                    await robot.room.simulate_scenario(kind)
            await asyncio.sleep(3)
        else:
            await asyncio.sleep(chance.uniform(0.3, 2))


async def watch_bots(arena: Arena, report: Report) -> None:
    """Looks ten times a second which bots are there."""
    gone_at: float | None = None
    while True:
        bots = await _bots(arena)
        if bots is not None:
            report.bots += [one for one in bots if one not in report.bots]
            report.most_bots = max(report.most_bots, len(bots))
            if not bots and gone_at is None and report.bots:
                gone_at = monotonic()
            elif bots and gone_at is not None:
                report.without_bot_s.append(monotonic() - gone_at)
                gone_at = None
        await asyncio.sleep(_LOOK_EVERY_S)


async def _bots(arena: Arena) -> list[str] | None:
    server = arena.server
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
        try:
            request = api.ListParticipantsRequest(room=arena.room)
            answer = await client.room.list_participants(request)
        except (api.ServerError, OSError):
            return None
    return [one.identity for one in answer.participants if is_bot(one.kind, one.attributes)]


async def run(arena: Arena, database_url: str, seed: int, duration_s: float) -> Report:
    """The whole: count, break, calm down, judge, leave, look for what is left."""
    report = Report()
    fresh = Footprint.of(arena.workers[0])
    stop = asyncio.Event()
    people = [Person(number, arena, seed) for number in range(len(PEOPLE))]
    server = arena.server
    token = server.token(arena.room, "witness", "Witness")
    async with (
        asyncio.TaskGroup() as tasks,
        Witness().listening(server.url, token) as witness,
    ):
        watching = tasks.create_task(watch_bots(arena, report), name="watch")
        living = [
            tasks.create_task(one.live(stop), name=f"person:{one.talker.identity}")
            for one in people
        ]
        await asyncio.sleep(5)
        await rage(arena, seed, duration_s, report)
        arena.gladia.faults.clear()
        await asyncio.sleep(_CALM_S)
        stop.set()
        await asyncio.wait(living)
        await _judge(arena, database_url, people, witness, report)
        watching.cancel()
    await _look_around(arena, fresh, report)
    return report


async def _judge(
    arena: Arena, database_url: str, people: list[Person], witness: Witness, report: Report
) -> None:
    spoken = [word for person in people for word in person.talker.spoken]
    deadline = monotonic() + _SETTLE_S
    while True:
        lines = await stored_lines(database_url, arena.room)
        report.verdict = judge(spoken, lines, witness)
        if report.verdict.is_complete or monotonic() > deadline:
            return
        await asyncio.sleep(1)


async def _look_around(arena: Arena, fresh: Footprint, report: Report) -> None:
    """Everybody left: what is still there after the room was closed?"""
    deadline = monotonic() + _EMPTY_WITHIN_S
    while (left := _left(arena, fresh)) and monotonic() < deadline:  # noqa: ASYNC110 - processes have no event
        await asyncio.sleep(0.5)
    report.left_behind += left
    now_mb = max(Footprint.of(one).memory_mb for one in arena.workers)
    report.memory_mb = fresh.memory_mb, now_mb


def _left(arena: Arena, fresh: Footprint) -> list[str]:
    found = [f"job of {one.name}" for one in arena.workers if job_pid(one, arena.room) is not None]
    found += [
        f"{one.name}: {what}" for one in arena.workers for what in Footprint.of(one).excess(fresh)
    ]
    if arena.gladia.connections:
        found.append(f"{len(arena.gladia.connections)} Gladia sockets")
    if arena.gladia.open_sessions():
        found.append(f"{len(arena.gladia.open_sessions())} Gladia sessions that nobody stopped")
    return found + left_files(arena.state_dir)


def main() -> None:
    """All of its own, in a temporary directory; PostgreSQL may be away for two minutes."""
    parser = argparse.ArgumentParser(prog="python -m dev.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="roomscribe-chaos-") as directory:
        Path(directory).chmod(0o711)  # root's PostgreSQL runs as another account
        report = asyncio.run(_alone(Path(directory), options.seed, options.minutes * 60))
    print(report)
    if report.problems:
        sys.exit(f"seed {options.seed}: {report.problems}")


async def _alone(directory: Path, seed: int, duration_s: float) -> Report:
    binary = livekit_dev.ensure_binary(os.environ, print)  # noqa: TID251 - composition root
    database = EmbeddedPostgres(EmbeddedConfig(home=directory, linger_s=0.1))
    await asyncio.to_thread(database.ensure)
    try:
        conn = await asyncpg.connect(database.url())
        await migrate(conn, load())
        await conn.close()
        state_dir = directory / "state"
        state_dir.mkdir()
        socket = database.layout.socket
        async with open_arena(binary, socket, "roomscribe", state_dir, "chaos") as arena:
            arena.longest_outage_s = _LONG_OUTAGE_S
            return await run(arena, database.url(), seed, duration_s)
    finally:
        database.close()


if __name__ == "__main__":
    main()
