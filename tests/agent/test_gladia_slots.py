"""Slots over real processes, and the spill file."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.gladia.slots import SessionSlots
from agent.gladia.spill import FileSpill

HOLDER = """
import asyncio, sys, time
from pathlib import Path
from agent.gladia.slots import SessionSlots
async def main():
    slots = SessionSlots(Path(sys.argv[1]), int(sys.argv[2]))
    held = [await slots.acquire() for _ in range(int(sys.argv[3]))]
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def tickets(directory: Path) -> list[Path]:
    return list(directory.glob("ticket-*"))


def start_holder(directory: Path, limit: int, count: int) -> "subprocess.Popen[str]":
    """A process that takes `count` slots, says so, and keeps them."""
    command = [sys.executable, "-c", HOLDER, str(directory), str(limit), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_no_more_than_the_limit(tmp_path: Path) -> None:
    slots, others = SessionSlots(tmp_path, 2), SessionSlots(tmp_path, 2)
    first, second = slots.try_acquire(), others.try_acquire()
    assert first is not None
    assert second is not None
    assert slots.try_acquire() is None
    second.release()
    second.release()
    third = slots.try_acquire()
    assert third is not None
    first.release()
    third.release()


async def test_first_come_first_served(tmp_path: Path) -> None:
    """Over two owners, as over two processes; nobody gets in between with `try_acquire`."""
    slots, others = SessionSlots(tmp_path, 1), SessionSlots(tmp_path, 1)
    held = slots.try_acquire()
    assert held is not None
    order: list[str] = []

    async def wait(name: str, pool: SessionSlots) -> None:
        slot = await pool.acquire()
        order.append(name)
        await asyncio.sleep(0)
        slot.release()

    async with asyncio.TaskGroup() as tasks:
        for name, pool in (("a", slots), ("b", others), ("c", slots)):
            tasks.create_task(wait(name, pool))
            await asyncio.sleep(0.02)
        held.release()
        assert slots.try_acquire() is None
    assert order[0] == "a"
    assert sorted(order) == ["a", "b", "c"]
    assert not tickets(tmp_path)


async def test_who_gives_up_leaves_the_queue(tmp_path: Path) -> None:
    slots = SessionSlots(tmp_path, 1)
    held = slots.try_acquire()
    assert held is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await slots.acquire()
    held.release()
    again = slots.try_acquire()
    assert again is not None
    again.release()


async def test_a_killed_process_frees_its_slots_and_its_place(tmp_path: Path) -> None:
    holder, waiter = start_holder(tmp_path, 2, 2), None
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        slots = SessionSlots(tmp_path, 2)
        assert slots.try_acquire() is None
        waiter = start_holder(tmp_path, 2, 1)
        async with asyncio.timeout(20):
            while not tickets(tmp_path):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        os.kill(waiter.pid, signal.SIGKILL)
        waiter.wait()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        async with asyncio.timeout(5):
            held = [await slots.acquire(), await slots.acquire()]
        for slot in held:
            slot.release()
    finally:
        for process in (holder, waiter):
            if process is not None and process.stdout is not None:
                process.kill()
                process.wait()
                process.stdout.close()


def test_the_spill_is_a_ring_without_a_name(tmp_path: Path) -> None:
    spill = FileSpill(tmp_path / "spill", capacity_bytes=1000)
    tokens = []
    for number in range(3):
        token = spill.write(bytes([number]) * 300)
        assert token is not None
        tokens.append(token)
    assert spill.write(bytes(300)) is None
    assert not list((tmp_path / "spill").iterdir())
    spill.free(tokens[0], 300)
    token = spill.write(b"x" * 300)
    assert token is not None
    assert spill.read(tokens[1], 300) == bytes([1]) * 300
    assert spill.read(tokens[2], 300) == bytes([2]) * 300
    assert spill.read(token, 300) == b"x" * 300
    for last in (tokens[1], tokens[2], token):
        spill.free(last, 300)
    assert spill.write(b"y" * 300) == 0
    spill.close()


def test_a_disk_that_fails_is_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    spill = FileSpill(tmp_path / "file", capacity_bytes=1000)
    assert spill.write(bytes(10)) is None
    assert spill.write(bytes(10)) is None
