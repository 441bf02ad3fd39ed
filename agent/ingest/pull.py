"""The mix of a room from an external RTMP server, such as nginx-rtmp, instead of our own port.

The same ffmpeg reads from the network. The server must acknowledge often (`ack_window 16384` in
nginx-rtmp), or LiveKit Egress does not come back after a lost connection.
"""

import asyncio
import logging
import random
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from contextlib import suppress

from core.retry import Backoff

logger = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
_RETRY = Backoff(first_s=0.3, max_s=5.0)


class Puller:
    """One stream from an external server, for as long as it is wanted."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        on_pcm: Callable[[bytes], None],
        on_gone: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            command: from `agent.ingest.decoder.pull_command`.
            on_pcm: gets s16le mono 16 kHz; must not block.
            on_gone: told each time that the stream ended; the next PCM is a new one.
            on_error: counts ends, as `exit`.
        """
        self._command = tuple(command)
        self._on_pcm = on_pcm
        self._on_gone = on_gone
        self._on_error = on_error
        self._ended = asyncio.Event()

    def end(self) -> None:
        """The stream is not wanted any more; `run` returns soon."""
        self._ended.set()

    async def run(self) -> None:
        """Pulls until `end`; a stream that is not there yet is asked for again and again."""
        failures = 0
        while not self._ended.is_set():
            heard = await self._pull_once()
            failures = 0 if heard else failures + 1
            self._on_gone()
            if self._ended.is_set():
                return
            self._on_error("exit")
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY.delay_s(max(failures, 1), random.random())):  # noqa: S311 - jitter
                    await self._ended.wait()

    async def _pull_once(self) -> bool:
        """Reads one connection to its end; says whether anything was heard."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env={}, limit=_READ_BYTES
        )
        heard, odd = False, b""
        assert process.stdout is not None
        try:
            async with asyncio.TaskGroup() as tasks:
                ending = tasks.create_task(self._stop_at_end(process), name="pull:end")
                while data := await process.stdout.read(_READ_BYTES):
                    heard = True
                    data = odd + data
                    whole = len(data) // 2 * 2
                    odd = data[whole:]
                    self._on_pcm(data[:whole])
                ending.cancel()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        return heard

    async def _stop_at_end(self, process: asyncio.subprocess.Process) -> None:
        await self._ended.wait()
        with suppress(ProcessLookupError):
            process.kill()
