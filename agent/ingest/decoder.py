"""One decoder per stream: a child process that turns AAC into PCM, and is replaced when it dies.

The child is ffmpeg, or the PyAV program beside this file where no ffmpeg is installed. It gets no
environment: it parses what strangers send.
"""

import asyncio
import logging
import shutil
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from core.decode_ledger import DecodeLedger
from core.errors import ConfigError
from core.retry import Backoff
from core.rtmp import AudioTag

logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 1 << 20
"""AAC on its way to the child, about a minute: when more is waiting, `ready` makes callers wait."""
STUCK_S = 3.0
"""Seconds without PCM while sound is waiting, after which the child is replaced."""
_STUCK_WAITING_MS = 1_000
_READ_BYTES = 64 * 1024
_END_S = 5.0
_EXIT_S = 1.0
_BACKOFF = Backoff(first_s=0.05, max_s=10.0, factor=3.0, jitter=0.3)
_QUIET = ("-nostdin", "-hide_banner", "-loglevel", "error")
_FLV_INPUT = ("-probesize", "32", "-analyzeduration", "0", "-f", "flv", "-i", "pipe:0")
_PULL_INPUT = ("-rw_timeout", "5000000", "-probesize", "32", "-analyzeduration", "0")
# No `first_pts=0` in the filter: when a broken frame changes the channel layout the filter begins
# anew, and would put silence for all the time since the start there (seen with ffmpeg 5.1). The
# ledger gives each child a time line that begins at 0.
_ALIGNED = ("-map", "0:a:0", "-vn", "-threads", "1", "-af", "aresample=async=1000")
_PCM_OUTPUT = ("-f", "s16le", "-ar", "16000", "-ac", "1", "-flush_packets", "1", "pipe:1")

ErrorCounter = Callable[[str], None]
"""Called with `exit`, `stuck` or `stderr` for each fault of a decoder."""


def find_decoder(ffmpeg: str = "") -> tuple[str, ...]:
    """The command of the best decoder here: `ffmpeg` (or the one on PATH), else PyAV.

    Args:
        ffmpeg: path of the binary; "pyav" asks for the fallback.
    """
    binary = None if ffmpeg == "pyav" else shutil.which(ffmpeg or "ffmpeg")
    if binary is not None:
        return (binary, *_QUIET, *_FLV_INPUT, *_ALIGNED, *_PCM_OUTPUT)
    return (sys.executable, "-I", str(Path(__file__).with_name("avdecode.py")))


def pull_command(url: str, ffmpeg: str = "") -> tuple[str, ...]:
    """The command that reads a stream from an RTMP server.

    Args:
        url: the stream.
        ffmpeg: path of the binary; default: the one on PATH.

    Raises:
        ConfigError: there is no ffmpeg here.
    """
    binary = shutil.which(ffmpeg or "ffmpeg")
    if binary is None:
        raise ConfigError(["RTMP_PULL_URL needs ffmpeg: apt-get install ffmpeg"])
    return (binary, *_QUIET, *_PULL_INPUT, "-i", url, *_ALIGNED, *_PCM_OUTPUT)


class Decoder:
    """The PCM of one publish, on one time line, whatever happens to the child."""

    def __init__(
        self,
        command: Sequence[str],
        on_pcm: Callable[[int, bytes], None],
        on_error: ErrorCounter,
    ) -> None:
        """Takes tags at once; decodes while `run` runs.

        Args:
            command: from `find_decoder`.
            on_pcm: gets (position in samples since the first tag, s16le mono 16 kHz); must not
                block.
            on_error: counts faults of the child.
        """
        self._command = tuple(command)
        self._on_pcm = on_pcm
        self._on_error = on_error
        self._ledger = DecodeLedger()
        self._pending = bytearray()
        self._process: Process | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._finished = False
        self._heard_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the present child, if one runs."""
        return self._process.pid if self._process is not None else None

    @property
    def jumps(self) -> int:
        """Jumps of the publisher's clock that were closed, each a loss of unknown length."""
        return self._ledger.jumps

    def feed(self, tag: AudioTag) -> None:
        """Takes one tag; never blocks. Await `ready` before reading more from the publisher."""
        data = self._ledger.add(tag.timestamp_ms, tag.payload, is_header=tag.is_header)
        if self._process is not None:
            self._pending += data
        if len(self._pending) >= MAX_PENDING_BYTES:
            self._room.clear()
        self._wake.set()

    async def ready(self) -> None:
        """Returns when there is room for more tags."""
        await self._room.wait()

    def finish(self) -> None:
        """No more tags: `run` returns when everything was decoded, at the latest after 5 s."""
        self._finished = True
        self._wake.set()

    async def run(self) -> None:
        """Decodes until `finish` and the end of the sound; the first child starts at the header."""
        while not self._ledger.has_header:
            if self._finished:
                return
            await self._woken()
        failures = 0
        while True:
            before = self._ledger.heard_samples
            fault = await self._decode_once(replay=failures < 2)  # noqa: PLR2004 - twice: poison
            if fault is None:
                return
            self._on_error(fault)
            if self._finished:
                return
            failures = 0 if self._ledger.heard_samples > before else failures + 1
            await asyncio.sleep(_BACKOFF.delay_s(failures, 0.5) if failures else 0)

    async def _decode_once(self, *, replay: bool) -> str | None:
        """Runs one child to its end; says what was wrong with it, if anything."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={}, limit=_READ_BYTES
        )
        self._pending[:] = self._ledger.restart(replay=replay)
        self._process = process
        # A child that has only just started, on a busy machine, gets three times as long.
        self._heard_at = time.monotonic() + 2 * STUCK_S
        helpers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for job, name in (
                    (self._write(process), "write"),
                    (self._count_complaints(process), "stderr"),
                    (self._watch(process), "watch"),
                ):
                    helpers.append(group.create_task(job, name=f"decoder:{name}:{process.pid}"))
                await self._read(process)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EXIT_S):
                        await process.wait()
                for helper in helpers:
                    helper.cancel()
        finally:
            self._process = None
            self._pending.clear()
            self._room.set()
            await self._end(process)
        if process.returncode == 0 and self._finished:
            return None
        stuck = time.monotonic() - self._heard_at >= STUCK_S
        logger.warning("decoder ended", extra={"returncode": process.returncode, "stuck": stuck})
        return "stuck" if stuck else "exit"

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while data := await process.stdout.read(_READ_BYTES):
            self._heard_at = time.monotonic()
            taken = self._ledger.take(data)
            if taken is not None:
                self._on_pcm(*taken)

    async def _write(self, process: Process) -> None:
        assert process.stdin is not None
        with suppress(ConnectionError):  # the child is gone: `_read` sees its end
            while True:
                if self._pending:
                    data = bytes(self._pending)
                    self._pending.clear()
                    process.stdin.write(data)
                    await process.stdin.drain()
                    self._room.set()
                elif self._finished:
                    process.stdin.close()
                    return
                else:
                    await self._woken()

    async def _count_complaints(self, process: Process) -> None:
        assert process.stderr is not None
        while complaint := await process.stderr.read(4096):
            self._on_error("stderr")
            logger.debug("decoder complains", extra={"bytes": len(complaint)})

    async def _watch(self, process: Process) -> None:
        """Kills a child that says nothing while sound is waiting, or that does not end."""
        end_at: float | None = None
        while True:
            await asyncio.sleep(STUCK_S / 6)
            now = time.monotonic()
            if self._finished and end_at is None:
                end_at = now + _END_S
            waiting = self._ledger.waiting_ms >= _STUCK_WAITING_MS
            if not waiting:
                self._heard_at = max(self._heard_at, now)
            stuck = waiting and now - self._heard_at >= STUCK_S
            if stuck or (end_at is not None and now >= end_at):
                _kill(process)
                return

    async def _end(self, process: Process) -> None:
        """Leaves no child and no pipe behind, cancelled or not."""
        _kill(process)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        with suppress(ConnectionError):
            await process.stdin.wait_closed()

    async def _woken(self) -> None:
        self._wake.clear()
        await self._wake.wait()


def _kill(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
