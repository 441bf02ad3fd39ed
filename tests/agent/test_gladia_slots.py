"""Slots over real processes, and the spill file."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from agent.gladia.slots import SessionSlots
from agent.gladia.spill import FileSpill
from tests.agent.gladia_kit import Seat, until

HOLDER = """
import asyncio, sys
from pathlib import Path
from agent.gladia.slots import SessionSlots
async def main():
    slots, granted = SessionSlots(Path(sys.argv[1]), int(sys.argv[2])), asyncio.Semaphore(0)
    count = int(sys.argv[3])
    places = [slots.ask(granted=granted.release, wanted=lambda: None) for _ in range(count)]
    for _ in places:
        await granted.acquire()
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def files(directory: Path, pattern: str) -> list[Path]:
    return list(directory.glob(pattern))


def tickets(directory: Path) -> list[Path]:
    return files(directory, "ticket-*")


def start_holder(directory: Path, limit: int, count: int) -> "subprocess.Popen[str]":
    """A process that takes `count` slots, says so, and keeps them."""
    command = [sys.executable, "-c", HOLDER, str(directory), str(limit), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_no_more_than_the_limit(tmp_path: Path) -> None:
    slots, others = SessionSlots(tmp_path, 2), SessionSlots(tmp_path, 2)
    first, second = await Seat(slots).taken(), await Seat(others).taken()
    third = Seat(slots)
    await until(lambda: len(tickets(tmp_path)) == 1)
    second.place.leave()
    second.place.leave()
    await third.taken()
    first.place.leave()
    third.place.leave()
    assert not tickets(tmp_path)


async def test_first_come_first_served(tmp_path: Path) -> None:
    """Over two owners, as over two processes."""
    slots, others = SessionSlots(tmp_path, 1), SessionSlots(tmp_path, 1)
    held = await Seat(slots).taken()
    line = []
    for number, pool in enumerate((slots, others, slots), start=1):
        line.append(Seat(pool))
        await until(lambda: len(tickets(tmp_path)) == number)  # noqa: B023 - awaited here
    held.place.leave()
    line.append(Seat(others))
    for turn, seat in enumerate(line, start=1):
        await seat.taken()
        assert sum(each.is_taken for each in line) == turn
        seat.place.leave()


async def test_a_voice_of_the_moment_comes_before_old_audio(tmp_path: Path) -> None:
    slots, others = SessionSlots(tmp_path, 1), SessionSlots(tmp_path, 1)
    held = await Seat(slots).taken()
    silent = Seat(slots)
    speaking = Seat(others, heard_at=time.monotonic())
    await until(lambda: len(tickets(tmp_path)) == 2)
    speaking.place.heard(time.monotonic() + 0.6)
    held.place.leave()
    await speaking.taken()
    assert not silent.is_taken
    speaking.place.leave()
    await silent.taken()
    silent.place.leave()


async def test_who_gives_up_leaves_the_queue(tmp_path: Path) -> None:
    slots = SessionSlots(tmp_path, 1)
    held, never = await Seat(slots).taken(), Seat(slots)
    waiting = Seat(slots)
    never.place.leave()
    await until(lambda: len(tickets(tmp_path)) == 1)
    waiting.place.leave()
    held.place.leave()
    again = await Seat(slots).taken()
    again.place.leave()
    assert not never.is_taken
    assert not waiting.is_taken
    assert not tickets(tmp_path)


async def test_the_one_who_was_silent_longest_is_asked_to_go(tmp_path: Path) -> None:
    slots, others = SessionSlots(tmp_path, 2), SessionSlots(tmp_path, 2)
    longest, short = await Seat(slots).taken(), await Seat(others).taken()
    short.place.heard(time.monotonic() + 0.6)
    waiting = Seat(others)
    await until(lambda: longest.wishes > 0)
    assert not short.wishes
    longest.place.leave()
    await waiting.taken()
    for seat in (short, waiting):
        seat.place.leave()


async def test_a_full_account_makes_room_as_full_slots_do(tmp_path: Path) -> None:
    slots = SessionSlots(tmp_path, 30)
    silent, refused = await Seat(slots).taken(), await Seat(slots).taken()
    refused.place.refused(True)
    await until(lambda: silent.wishes > 0)
    assert not refused.wishes
    refused.place.refused(False)
    assert not files(tmp_path, "refused-*")
    for seat in (silent, refused):
        seat.place.leave()


async def test_a_directory_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "slots"
    slots = SessionSlots(directory, 1)
    directory.rmdir()
    seat = Seat(slots)
    await asyncio.sleep(0.1)
    assert not seat.is_taken
    directory.mkdir()
    await seat.taken()
    seat.place.leave()


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    slots = SessionSlots(tmp_path / "slots", 1)
    seats = [await Seat(slots).taken(), Seat(slots)]
    await until(lambda: bool(tickets(tmp_path / "slots")))
    assert (tmp_path / "slots").stat().st_mode & 0o077 == 0
    for path in (tmp_path / "slots").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    for seat in seats:
        seat.place.leave()


async def test_a_killed_process_frees_its_slots_and_its_place(tmp_path: Path) -> None:
    holder, waiter = start_holder(tmp_path, 2, 2), None
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiter = start_holder(tmp_path, 2, 1)
        await until(lambda: bool(tickets(tmp_path)), 20)
        slots = SessionSlots(tmp_path, 2)
        seats = [Seat(slots), Seat(slots)]
        os.kill(waiter.pid, signal.SIGKILL)
        waiter.wait()
        assert not any(seat.is_taken for seat in seats)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        for seat in seats:
            await seat.taken(5)
            seat.place.leave()
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
