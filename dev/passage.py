"""A way to a server that can be closed, frozen, slowed and cut: outages without a real one.

Sits between a client and a server on this machine and forwards bytes. What passes is not read.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 65_536


class Passage:
    """One port of 127.0.0.1 in front of a Unix socket; made by `open_passage`."""

    def __init__(self, target: Path) -> None:
        self.port = 0
        self.delay_s = 0.0
        """Added to each piece of data in both directions."""
        self.cut_after_bytes: int | None = None
        """So many bytes of the client are let through, then every connection is reset, once."""
        self.cuts = 0
        """How often that happened."""
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def open(self) -> None:
        """Takes connections, again at the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """The server is gone: connections are reset, new ones refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        self.thaw()

    def cut(self) -> None:
        """Resets every connection; new ones are taken."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        """Nothing passes any more, nothing is closed: as if the server were stopped."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            self._writers |= {writer, far_writer}
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pump(reader, far_writer, counts=True))
                    tasks.create_task(self._pump(far_reader, writer, counts=False))
            finally:
                self._writers -= {writer, far_writer}
                far_writer.transport.abort()
        writer.transport.abort()

    async def _pump(self, reader: StreamReader, writer: StreamWriter, *, counts: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flows.wait()
                if counts and self._is_cut_by(len(data)):
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def _is_cut_by(self, count: int) -> bool:
        if self.cut_after_bytes is None:
            return False
        self.cut_after_bytes -= count
        if self.cut_after_bytes > 0:
            return False
        self.cut_after_bytes = None
        self.cuts += 1
        return True


@asynccontextmanager
async def open_passage(target: Path) -> AsyncIterator[Passage]:
    """An open passage to the Unix socket `target`, closed at the end."""
    passage = Passage(target)
    await passage.open()
    try:
        yield passage
    finally:
        await passage.close()
        while passage._writers:  # noqa: SLF001, ASYNC110 - its own; connections are ending
            await asyncio.sleep(0.01)
