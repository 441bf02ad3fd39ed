"""Strangers at the RTMP port: whatever they send, one publisher goes on as if they were not there.

The port runs in a process of its own, so that its memory and its pauses are its own.
"""

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from core.rtmp.chunks import MessageType
from dev import rtmp
from tests.agent.ingest_kit import Publisher, ffmpeg_publisher, run_program, until

OPENED = rtmp.HELLO + rtmp.ECHO + rtmp.connect()
LET_IN = rtmp.publish("fuzz?token=right")
SOUND = rtmp.audio(0, rtmp.AAC_HEADER) + rtmp.audio(0, b"\xaf\x01" + bytes(300)) * 3


def chunk_bomb(chance: random.Random) -> bytes:
    """Unfinished messages on 2,000 chunk streams."""
    header = rtmp.message(MessageType.AUDIO, bytes(128))[1:12]
    header = header[:3] + (60_000).to_bytes(3) + header[6:]
    ids = (b"\x01" + n.to_bytes(2, "little") for n in range(chance.randrange(100), 2000))
    return OPENED + b"".join(first + header + bytes(128) for first in ids)


def amf_bomb(chance: random.Random) -> bytes:
    nest = chance.choice(
        [b"\x03\x00\x01k", b"\x0a\x00\x00\x00\x01", b"\x08\xff\xff\xff\xff\x00\x01k"]
    )
    payload = b"\x02\x00\x01x" + nest * (60_000 // len(nest))
    return (
        OPENED
        + rtmp.set_chunk_size(65536)
        + rtmp.message(MessageType.COMMAND_AMF0, payload, chunk_bytes=65536)
    )


def oversize(chance: random.Random) -> bytes:
    opening = chance.choice([OPENED, LET_IN])
    head = rtmp.message(MessageType.VIDEO, b"")[:4] + b"\xff\xff\xff" + b"\x09" + bytes(4)
    return opening + head + bytes(100_000)


def tiny_chunks(_: random.Random) -> bytes:
    """64 KiB in chunks of one byte: the most work for the fewest bytes."""
    return (
        OPENED
        + rtmp.set_chunk_size(1)
        + rtmp.message(MessageType.COMMAND_AMF0, bytes(64 * 1024), chunk_bytes=1)
    )


def mutated(chance: random.Random) -> bytes:
    opening = LET_IN if chance.random() < 0.2 else rtmp.publish("nobody?token=x")
    data = bytearray(opening + SOUND + rtmp.unpublish())
    for _ in range(chance.randrange(1, 9)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(200)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(200))
    return bytes(data[: chance.randrange(len(data)) + 1])


ATTACKS: dict[str, Callable[[random.Random], bytes]] = {
    "garbage": lambda chance: b"\x03" + chance.randbytes(1_000_000),
    "noise": lambda chance: chance.randbytes(chance.randrange(1, 5000)),
    "http": lambda _: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "chunk bomb": chunk_bomb,
    "amf bomb": amf_bomb,
    "oversize": oversize,
    "tiny chunks": tiny_chunks,
    "empty messages": lambda _: OPENED + rtmp.message(8, b"", chunk_stream_id=4) + b"\xc4" * 60_000,
    "chunk size": lambda _: OPENED + rtmp.set_chunk_size(2**31 - 1),
    "half a hello": lambda _: rtmp.HELLO[:700],
    "flood after publish": lambda _: LET_IN + SOUND * 200,
}


class Port:
    """The process under attack."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.number = 0

    async def report(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        answer = json.loads(await self.process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    async def quiet(self, sockets: int, children: int) -> dict[str, Any]:
        """The report once at most so many sockets are open and decoders run."""
        async with asyncio.timeout(30):
            while True:
                now = await self.report()
                if now["sockets"] <= sockets and now["children"] <= children:
                    return now
                await asyncio.sleep(0.1)


@asynccontextmanager
async def attacked_port() -> AsyncIterator[Port]:
    command = (sys.executable, "-m", "tests.agent.ingest_port")
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = Port(process)
        port.number = int(await process.stdout.readline())
        yield port
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def attack(port: int, data: bytes, linger_s: float = 0.0) -> None:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(linger_s)
                writer.write_eof()
                while await reader.read(4096):
                    pass
            finally:
                writer.transport.abort()


async def loris(port: int) -> None:
    """Says one byte every now and then until it is thrown out."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in OPENED:
                writer.write(bytes([byte]))
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        if await reader.read(1) == b"":
                            break
            writer.transport.abort()


@pytest.mark.timeout(120)
async def test_one_publisher_is_heard_through_every_attack() -> None:
    chance = random.Random(20261121)
    async with attacked_port() as port, asyncio.TaskGroup() as group:
        url = f"rtmp://127.0.0.1:{port.number}/session/legit?token=right"
        playing = group.create_task(run_program(ffmpeg_publisher(url, 90)), name="legit")
        for _ in range(60):
            await attack(port.number, mutated(chance))
        await asyncio.sleep(1.5)
        calm = await port.report()

        slow = [group.create_task(loris(port.number), name="loris") for _ in range(60)]
        for make in ATTACKS.values():
            for _ in range(4):
                await attack(port.number, make(chance))
        connections = asyncio.Semaphore(20)

        async def fuzz(data: bytes) -> None:
            async with connections:
                await attack(port.number, data)

        async with asyncio.TaskGroup() as fuzzers:
            for number in range(2000):
                fuzzers.create_task(fuzz(mutated(chance)), name=f"fuzz:{number}")
        await asyncio.wait(slow)

        after = await port.quiet(sockets=2, children=1)
        await until(lambda: not playing.done())
        playing.cancel()

        print(calm, after)  # noqa: T201 - shown when it fails
        assert after["publishes"] == 1, "the publisher had to come back"
        assert after["jumps"] == 0
        assert after["closed"]["slow"] >= 60
        assert after["closed"]["protocol"] >= 300
        assert after["busy_s"] <= 0.2, "a stranger kept the others from their turn"
        assert after["rss_mb"] <= calm["rss_mb"] + 20


@pytest.mark.timeout(60)
async def test_a_crowd_is_turned_away_and_leaves_no_trace() -> None:
    async with attacked_port() as port:
        crowd = [await asyncio.open_connection("127.0.0.1", port.number) for _ in range(300)]
        now = await port.quiet(sockets=128 + 1, children=0)
        assert now["closed"]["crowded"] >= 1
        for _, writer in crowd:
            writer.transport.abort()
        await port.quiet(sockets=1, children=0)
        legit = await Publisher.connect(port.number, "legit?token=right")
        assert await legit.answer(b"Publish.Start")
        await legit.close()
