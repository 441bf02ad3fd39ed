"""Moves the journal's records to PostgreSQL, in batches, for ever.

Any number of processes of a host may run a flusher; a file lock elects the one that works, and
another takes over within half a second of its death. So a dead process's records are not lost:
they lie in the shared file, and whoever is elected moves them.
"""

import asyncio
import fcntl
import functools
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from agent.journal import Entry, Journal
from core.errors import (
    AppError,
    ConfigError,
    Conflict,
    LocalProtocolError,
    StoreError,
    StoreUnavailable,
)
from core.retry import Backoff
from db.embedded import lock, open_lock
from db.errors import Rejected
from db.pool import Database
from db.records import Record, from_json
from db.store import apply

_MOST_RECORDS = 500
_POLL_S = 0.2
_DRAIN_POLL_S = 0.05
_ELECTION_S = 0.5
_CAREFUL_AFTER_S = 1.0
_CHECKPOINT_EVERY_S = 10.0
_REFERENCE_TRIES = 3
_BACKOFF = Backoff(first_s=0.1, max_s=3.0)
P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class FlusherCounters:
    """What this process has moved so far."""

    flushed: int = 0
    batches: int = 0
    failures: int = 0
    dead: int = 0


class Flusher:
    """Runs on its own connection to the journal; every journal call is made in a thread."""

    def __init__(
        self,
        journal_path: Path,
        database: Database,
        *,
        batch_s: float = 5.0,
        batch_size: int = 10,
    ) -> None:
        """Takes the bounds of a batch.

        Args:
            journal_path: the host's journal.
            database: where the records go.
            batch_s: seconds that a record waits at most while the database answers.
            batch_size: as soon as so many wait, they go.
        """
        self._path = journal_path
        self._database = database
        self._batch_s = batch_s
        self._batch_size = batch_size
        self._hurry = journal_path.with_suffix(".hurry")
        self._limit = _MOST_RECORDS
        self._down_since: float | None = None
        self.is_elected = False
        """Whether this process is the one of the host that moves records."""
        self.waiting = 0
        """Records that may be moved, 1000 at most, when this process last looked; 0 where another
        one is elected."""
        self.counters = FlusherCounters()

    async def run(self) -> None:
        """Works until it is cancelled.

        Raises:
            StoreUnavailable: the journal's directory cannot be written.
        """
        elected = open_lock(self._path.with_suffix(".flusher"))
        try:
            while not lock(elected, fcntl.LOCK_EX):  # noqa: ASYNC110 - another process's lock
                await asyncio.sleep(_ELECTION_S)
            self.is_elected = True
            await self._work()
        finally:
            self.is_elected = False
            os.close(elected)

    async def drain(self, timeout_s: float) -> bool:
        """Has everything that will not change moved now, by whoever is elected.

        Returns:
            Whether it was done in time; if not, it is safe in the journal for the next start.
        """
        with ThreadPoolExecutor(1, "journal-drain") as thread:
            journal = await _in(thread, Journal, self._path)
            try:
                async with asyncio.timeout(timeout_s):
                    while (await _in(thread, journal.depth)).settled:
                        self._hurry.touch()
                        await asyncio.sleep(_DRAIN_POLL_S)
            except TimeoutError:
                return False
            finally:
                thread.submit(journal.close)
        return True

    async def _work(self) -> None:
        with ThreadPoolExecutor(1, "journal-flusher") as thread:
            journal = await _in(thread, Journal, self._path)
            try:
                await self._move_for_ever(journal, thread)
            finally:
                thread.submit(journal.close)

    async def _move_for_ever(self, journal: Journal, thread: ThreadPoolExecutor) -> None:
        attempt = 0
        checkpoint_at = 0.0
        while True:
            try:
                await self._due(journal, thread)
                await self._flush(journal, thread)
            except (StoreError, ConfigError) as exc:
                attempt += 1
                self._failed(journal, exc, attempt)
                await asyncio.sleep(_BACKOFF.delay_s(attempt, random.random()))  # noqa: S311
                continue
            if attempt:
                attempt = 0
                self._recovered(journal)
            if time.monotonic() >= checkpoint_at:
                checkpoint_at = time.monotonic() + _CHECKPOINT_EVERY_S
                await _in(thread, journal.checkpoint)

    async def _due(self, journal: Journal, thread: ThreadPoolExecutor) -> None:
        """Waits until a batch is full, old enough, or somebody is in a hurry."""
        while True:
            count, age_s = await _in(thread, journal.waiting)
            self.waiting = count
            old_enough = age_s >= self._batch_s - 2 * _POLL_S
            if count >= self._batch_size or (count and (old_enough or self._hurry.exists())):
                return
            if not count:
                self._hurry.unlink(missing_ok=True)
            await asyncio.sleep(_POLL_S)

    async def _flush(self, journal: Journal, thread: ThreadPoolExecutor) -> None:
        entries = await _in(thread, journal.ready, self._limit)
        batch: list[tuple[Entry, Record]] = []
        for entry in entries:
            try:
                batch.append((entry, from_json(entry.body)))
            except LocalProtocolError as exc:
                await self._bury(journal, thread, entry, exc)
        if batch:
            await self._move(journal, thread, batch)
        self._limit = min(self._limit * 2, _MOST_RECORDS)

    async def _move(
        self, journal: Journal, thread: ThreadPoolExecutor, batch: Sequence[tuple[Entry, Record]]
    ) -> None:
        """Writes a batch; halves it until the records that PostgreSQL refuses stand alone."""
        try:
            await self._apply([record for _, record in batch])
        except (Rejected, Conflict) as exc:
            if len(batch) == 1:
                await self._bury(journal, thread, batch[0][0], exc)
                return
            half = len(batch) // 2
            await self._move(journal, thread, batch[:half])
            await self._move(journal, thread, batch[half:])
            return
        await _in(thread, journal.acknowledge, [entry for entry, _ in batch])
        self.counters.flushed += len(batch)
        self.counters.batches += 1

    async def _apply(self, records: Sequence[Record]) -> None:
        """A row that ours refer to may be deleted under our hands: then look it up again."""
        for tries_left in range(_REFERENCE_TRIES - 1, -1, -1):
            try:
                async with self._database.connection() as conn:
                    await apply(conn, records)
            except Rejected as exc:
                if not (exc.is_missing_reference and tries_left):
                    raise
            else:
                return

    async def _bury(
        self, journal: Journal, thread: ThreadPoolExecutor, entry: Entry, exc: AppError
    ) -> None:
        await _in(thread, journal.bury, entry, str(exc))
        self.counters.dead += 1
        _log.error("record refused", extra={"error": str(exc), "journal_id": entry.id})

    def _failed(self, journal: Journal, exc: AppError, attempt: int) -> None:
        now = time.monotonic()
        self.counters.failures += 1
        self._limit = max(self._limit // 2, 1)  # a slow server may manage fewer
        self._down_since = now if self._down_since is None else self._down_since
        if now - self._down_since > _CAREFUL_AFTER_S:
            journal.set_careful(True)
        if attempt == 1:
            level = logging.WARNING if isinstance(exc, StoreUnavailable) else logging.ERROR
            _log.log(level, "flush failed; records wait", extra={"error": str(exc)})

    def _recovered(self, journal: Journal) -> None:
        self._down_since = None
        journal.set_careful(False)
        _log.info("flush works again")


async def _in(
    thread: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Runs a journal call in the flusher's one thread, where calls never overlap."""
    work = functools.partial(call, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(thread, work)
