"""At most so many Gladia sessions at once over all processes of a host.

An account has few live sessions (30), and Gladia answers 429 beyond them. A slot is a locked file:
the kernel frees it with the process that held it, however that died. Waiting is fair: within a
process by the order of asking, among processes by tickets, which are locked files as well. Whoever
has the oldest living ticket looks for a free slot.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.05
_TICKETS = "ticket-*"


class Slot:
    """The right to one session. Release it when Gladia has ended the session."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Gives the slot back; harmless when repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SessionSlots:
    """Slots `0` to `limit - 1` in a directory that all processes of the host share."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Creates the directory if need be.

        Args:
            directory: on a local file system.
            limit: sessions at once; processes may differ in it, each keeps to its own.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._limit = limit
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._preferred = os.getpid() % limit

    def try_acquire(self) -> Slot | None:
        """A slot at once, unless all are taken or somebody waits for one."""
        if self._waiting or self._oldest_ticket() is not None:
            return None
        return self._take()

    async def acquire(self) -> Slot:
        """The next slot; waits as long as it takes."""
        self._waiting += 1
        try:
            async with self._turn:
                return await self._queue()
        finally:
            self._waiting -= 1

    async def _queue(self) -> Slot:
        ticket = self.directory / f"ticket-{time.monotonic_ns():020}-{os.getpid()}"
        descriptor = _locked(ticket)
        assert descriptor is not None, "a ticket has one owner"
        try:
            while True:
                if self._oldest_ticket() == ticket and (slot := self._take()) is not None:
                    return slot
                await asyncio.sleep(_POLL_S)
        finally:
            ticket.unlink(missing_ok=True)
            os.close(descriptor)

    def _take(self) -> Slot | None:
        for offset in range(self._limit):
            number = (self._preferred + offset) % self._limit
            descriptor = _locked(self.directory / f"slot-{number:04}")
            if descriptor is not None:
                self._preferred = (number + 1) % self._limit
                return Slot(descriptor)
        return None

    def _oldest_ticket(self) -> Path | None:
        """The first in the queue; tickets of dead processes are torn up on the way."""
        for ticket in self._tickets():
            descriptor = _locked(ticket, create=False)
            if descriptor is None:
                if ticket.exists():
                    return ticket
                continue
            ticket.unlink(missing_ok=True)
            os.close(descriptor)
        return None

    def _tickets(self) -> Iterator[Path]:
        return iter(sorted(self.directory.glob(_TICKETS)))


def _locked(path: Path, *, create: bool = True) -> int | None:
    """A descriptor that holds the file's lock; None where somebody else holds it."""
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
