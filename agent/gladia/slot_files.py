"""The directory in which all processes of a host see who holds a slot and who waits for one.

A slot is a locked file, and so is a ticket in the line for one: the kernel frees both with the
process that held them. The modification time of either says when its speaker was last heard, in
nanoseconds of the host's monotonic clock; 0 is a slot that nobody holds. A `refused` file says
that the holder of that slot has no session, since Gladia's account is full.
"""

import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from agent.locks import lock, place_locked, private_directory
from core.slots import Demand, Ticket

_TICKET: Final = "ticket"
_REFUSED: Final = "refused"
_SLOT: Final = "slot"
_NS: Final = 1_000_000_000


class SlotFiles:
    """Names and times; every method may raise OSError. Descriptors belong to the caller."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory)
        self._numbers = count()

    def draw_ticket(self, heard_at: float) -> tuple[str, int]:
        """A new ticket's name, and the descriptor that makes it count."""
        name = f"{_TICKET}-{time.monotonic_ns():020}-{os.getpid()}-{next(self._numbers)}"
        return name, place_locked(self._directory / name, times=_stamp(heard_at))

    def refuse(self, number: int) -> tuple[str, int]:
        """The same for the want of somebody in a slot whom Gladia refuses a session."""
        name = f"{_REFUSED}-{time.monotonic_ns():020}-{number:04}"
        return name, place_locked(self._directory / name)

    def remove(self, name: str, descriptor: int) -> None:
        """Ends a ticket or a want."""
        (self._directory / name).unlink(missing_ok=True)
        os.close(descriptor)

    def take(self, number: int, now: float) -> int | None:
        """The slot's descriptor; None where somebody holds it."""
        descriptor = lock(self._slot(number), create=True)
        if descriptor is not None:
            self.touch(descriptor, now)
        return descriptor

    def free(self, descriptor: int) -> None:
        """Gives a slot back."""
        os.utime(descriptor, ns=(0, 0))
        os.close(descriptor)

    def touch(self, descriptor: int, now: float) -> None:
        """The speaker of a slot, or of a ticket, is heard."""
        os.utime(descriptor, ns=_stamp(now))

    def tidy(self, number: int) -> None:
        """A slot whose process died says from now on that nobody holds it."""
        descriptor = lock(self._slot(number))
        if descriptor is not None:
            self.free(descriptor)

    def lives(self, name: str) -> bool:
        """Whether somebody stands behind a ticket or a want; that of the dead is torn up."""
        path = self._directory / name
        descriptor = lock(path)
        if descriptor is None:
            return path.exists()
        self.remove(name, descriptor)
        return False

    def tickets(self) -> list[Ticket]:
        """All of the host, those of dead processes included."""
        return [
            Ticket(name=name, asked_at=int(name.split("-")[1]) / _NS, heard_at=heard_ns / _NS)
            for name, heard_ns in self._files(_TICKET)
        ]

    def demand(self) -> Demand:
        """Who wants a session."""
        refused = {}
        for name, _ in self._files(_REFUSED):
            _, since_ns, number = name.split("-")
            if self.lives(name):
                refused[int(number)] = int(since_ns) / _NS
        return Demand(tickets=tuple(self.tickets()), refused_since=refused)

    def heard_at(self, limit: int) -> dict[int, float]:
        """When each slot below `limit` was last heard that is held, or was by somebody who died."""
        heard = {int(name.split("-")[1]): ns / _NS for name, ns in self._files(_SLOT) if ns}
        return {number: at for number, at in heard.items() if number < limit}

    def _slot(self, number: int) -> Path:
        return self._directory / f"{_SLOT}-{number:04}"

    def _files(self, kind: str) -> Iterator[tuple[str, int]]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.startswith(f"{kind}-"):
                    try:
                        yield entry.name, entry.stat().st_mtime_ns
                    except FileNotFoundError:
                        continue


def _stamp(at: float) -> tuple[int, int]:
    """Access and modification time, never the 0 of a free slot."""
    ns = max(round(at * _NS), 1)
    return ns, ns
