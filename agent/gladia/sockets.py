"""All WebSockets of one speaker by the core's numbers, and the notes about their sessions."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import aiohttp

from agent.gladia.open_sessions import Note, OpenSessions
from agent.gladia.socket import Socket
from core.gladia.commands import Closed
from core.gladia.refusals import has_ended

Spawn: TypeAlias = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Sockets:
    """Opens, feeds and closes. A session has a note from its first connection to its end.

    The callbacks get the connection's number; their order is that of `agent.gladia.socket.Socket`.
    What is still noted when `let_go` is called is left to whoever stops the sessions of the dead.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        open_sessions: OpenSessions,
        *,
        on_open: Callable[[int], None],
        on_text: Callable[[int, str], None],
        on_closed: Callable[[int, Closed], None],
    ) -> None:
        self._http = http
        self._open_sessions = open_sessions
        self._on_open = on_open
        self._on_text = on_text
        self._on_closed = on_closed
        self._sockets: dict[int, Socket] = {}
        self._notes: dict[str, Note | None] = {}
        self._running = 0
        self._none = asyncio.Event()
        self._none.set()

    def connect(self, connection: int, url: str, spawn: Spawn) -> None:
        """Begins to open a connection."""
        if url not in self._notes:
            self._notes[url] = self._open_sessions.note(url)
        socket = Socket(
            self._http,
            url,
            on_open=partial(self._on_open, connection),
            on_text=partial(self._on_text, connection),
            on_closed=partial(self._closed, connection, url),
        )
        self._sockets[connection] = socket
        self._running += 1
        self._none.clear()
        task = spawn(f"gladia:socket:{connection}", socket.run())
        task.add_done_callback(lambda _: self._done(socket, url))

    def disown(self, url: str) -> None:
        """Leaves a session that nobody will connect to."""
        if (note := self._open_sessions.note(url)) is not None:
            note.leave()

    def send(self, connection: int, payload: bytes | str) -> None:
        """Sends in order; to a connection that has gone, nothing."""
        if (socket := self._sockets.get(connection)) is not None:
            socket.send(payload)

    def disconnect(self, connection: int) -> None:
        """Says goodbye; nothing is told about it afterwards."""
        if (socket := self._sockets.pop(connection, None)) is not None:
            socket.close()

    async def flush(self) -> None:
        """Lets all say what they have to say, and goodbye; returns when the last one has gone."""
        for socket in self._sockets.values():
            socket.close()
        await self._none.wait()

    def take_lost(self) -> list[int]:
        """Connections whose end nobody was told."""
        lost = [*self._sockets]
        self._sockets.clear()
        return lost

    def let_go(self) -> None:
        """Nobody will connect to these sessions again, though some may be open."""
        for note in self._notes.values():
            if note is not None:
                note.leave()
        self._notes.clear()

    def _closed(self, connection: int, url: str, how: Closed) -> None:
        self._sockets.pop(connection, None)
        if has_ended(how):
            self._forget(url)
        self._on_closed(connection, how)

    def _done(self, socket: Socket, url: str) -> None:
        self._running -= 1
        if not self._running:
            self._none.set()
        if socket.has_said_stop:
            self._forget(url)

    def _forget(self, url: str) -> None:
        if (note := self._notes.pop(url, None)) is not None:
            note.forget()
