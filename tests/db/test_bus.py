"""Each bus carries messages between processes, and comes back by itself."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from shutil import which

import asyncpg
import pytest
from redis.asyncio import Redis

from db.bus import Bus, MemoryBus, PostgresBus, RedisBus
from tests.db.probes import Open, until


class Ear:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.interruptions = 0

    def received(self, slug: str, message: bytes) -> None:
        self.heard.append((slug, message))

    def interrupted(self) -> None:
        self.interruptions += 1


@asynccontextmanager
async def running(*buses: Bus) -> AsyncIterator[list[Ear]]:
    ears = [Ear() for _ in buses]
    async with AsyncExitStack() as stack:
        for bus, ear in zip(buses, ears, strict=True):
            stack.enter_context(bus.subscribe(ear.received, ear.interrupted))
        async with asyncio.TaskGroup() as tasks:
            runners = [tasks.create_task(bus.run()) for bus in buses]
            if not isinstance(buses[0], MemoryBus):
                await until(lambda: all(ear.interruptions for ear in ears))
            yield ears
            for runner in runners:
                runner.cancel()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    program = which("redis-server")
    if program is None:
        pytest.fail("no redis-server: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir"]
    server = subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.DEVNULL)
    yield f"redis://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture(params=["memory", "postgres", "redis"])
async def pair(
    request: pytest.FixtureRequest, database_url: str, redis_url: str, open_url: Open
) -> AsyncIterator[list[Bus]]:
    """Two ends of a bus, as in two processes; the memory bus has one."""
    if request.param == "memory":
        yield [MemoryBus()]
    elif request.param == "redis":
        yield [RedisBus(redis_url), RedisBus(redis_url)]
    else:
        async with open_url(database_url) as one, open_url(database_url) as other:
            yield [PostgresBus(one), PostgresBus(other)]


async def test_everybody_hears_everything_in_order(pair: list[Bus]) -> None:
    messages = [(f"room-{n % 3}", f"Встреча №{n}".encode()) for n in range(500)]
    async with running(*pair) as ears:
        for start in range(0, len(messages), 25):
            await pair[0].publish(messages[start : start + 25])
        await until(lambda: all(len(ear.heard) == len(messages) for ear in ears))
    assert all(ear.heard == messages for ear in ears)


@pytest.mark.parametrize("size", [0, 6999, 7000, 7001, 7999, 8000, 14 * 1024, 60_000])
async def test_any_size_arrives_whole(pair: list[Bus], size: int) -> None:
    """NOTIFY takes 7,999 bytes; Cyrillic letters are two bytes and must not be cut in half."""
    text = "a" * (size % 2) + "ы" * (size // 2)
    async with running(*pair) as ears:
        await pair[0].publish([("room", text.encode()), ("room", b"next")])
        await until(lambda: all(len(ear.heard) == 2 for ear in ears))
    assert all(ear.heard == [("room", text.encode()), ("room", b"next")] for ear in ears)


async def test_what_a_bus_cannot_carry_is_taken_back(database_url: str, open_url: Open) -> None:
    async with open_url(database_url) as database:
        bus = PostgresBus(database)
        await bus.publish([("room", b"one"), ("room", b"two")])
        assert not bus.is_flowing
        assert bus.take_back() == [("room", b"one"), ("room", b"two")]
        async with running(bus) as (ear,):
            await until(lambda: bus.is_connected)
            assert bus.is_flowing
            await bus.publish([("room", b"three")])
            await until(lambda: bool(ear.heard))
            assert ear.heard == [("room", b"three")]


async def test_postgres_bus_comes_back(database_url: str, open_url: Open) -> None:
    async with open_url(database_url) as database, running(PostgresBus(database)) as (ear,):
        bus = PostgresBus(database)
        async with running(bus):
            killer = await asyncpg.connect(database_url)
            await killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            await killer.close()
            await until(lambda: ear.interruptions == 2)
            await until(lambda: bus.is_connected)
            await bus.publish([("room", b"after")])
            await until(lambda: ("room", b"after") in ear.heard)


async def test_redis_bus_comes_back(redis_url: str) -> None:
    bus = RedisBus(redis_url)
    async with running(bus) as (ear,):
        async with Redis.from_url(redis_url) as admin:
            await admin.client_kill_filter(_type="pubsub")
        await until(lambda: ear.interruptions == 2)
        await bus.publish([("room", b"after")])
        await until(lambda: ("room", b"after") in ear.heard)


async def test_a_blocked_way_drops_the_oldest(open_url: Open) -> None:
    async with open_url("postgresql://nobody@127.0.0.1:1/none") as database:
        bus = PostgresBus(database)
        async with asyncio.TaskGroup() as tasks:
            runner = tasks.create_task(bus.run())
            for n in range(2100):
                await bus.publish([("room", b"%d" % n)])
            assert bus.dropped == 100
            runner.cancel()
