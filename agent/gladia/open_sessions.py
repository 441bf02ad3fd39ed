"""Which Gladia sessions are open, written down where `kill -9` does not reach.

A session that nobody stops counts against the account's thirty, by Gladia's documentation for up
to three hours, and only its URL can stop it: the API has no request that does, and deletes only
what has ended. So the URL lies in a file for as long as the session may be open, locked by the
process that owns it. Once that process is dead, whoever finds the file can stop the session.

The URL's token is a secret, since whoever has it hears the session. It is good for nothing once
the session has ended, and the file, readable by its owner alone, goes with the session.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp

from agent.gladia.socket import Socket
from agent.locks import DRAFT, lock, place_locked, private_directory
from core.gladia.commands import Closed
from core.gladia.messages import STOP_RECORDING
from core.gladia.refusals import AfterClose, after_close

logger = logging.getLogger(__name__)

_WATCH_S: Final = 5.0
_STOP_S: Final = 10.0
"""For the connection, stop_recording and Gladia's goodbye."""
_LONGEST_LIFE_S: Final = 3 * 3600
"""Gladia ends a session after three hours (docs.gladia.io, limits, read 2026-04)."""
_DRAFT_LIFE_S: Final = 60.0
_MOST_BYTES: Final = 8192


class Note:
    """One open session, by its URL. Ends with `forget` or `leave`."""

    def __init__(self, path: Path, descriptor: int, url: str) -> None:
        self.url = url
        self._path = path
        self._descriptor: int | None = descriptor

    def forget(self) -> None:
        """The session has ended; harmless when repeated."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """The session may be open, and is nobody's from now on."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class OpenSessions:
    """The notes of a host, beside its slots: one small file for each open session."""

    def __init__(self, slots_directory: Path) -> None:
        self._directory = slots_directory / "open"

    def note(self, url: str) -> Note | None:
        """Writes down that the session of this URL is open; None where the disk refuses."""
        try:
            path = private_directory(self._directory) / secrets.token_hex(8)
            return Note(path, place_locked(path, url.encode()), url)
        except OSError:
            logger.exception("an open Gladia session could not be written down")
            return None

    def left_behind(self) -> list[Note]:
        """Sessions of dead processes; they belong to the caller, who has to end each note."""
        try:
            paths = [*self._directory.iterdir()]
        except OSError:
            return []
        found = (_abandoned(path) for path in paths)
        return [note for note in found if note is not None]


async def watch(slots_directory: Path) -> None:
    """Stops what dead processes leave open, every few seconds, until cancelled."""
    sessions = OpenSessions(slots_directory)
    async with aiohttp.ClientSession() as http:
        while True:
            await stop_left_behind(sessions, http)
            await asyncio.sleep(_WATCH_S)


async def stop_left_behind(sessions: OpenSessions, http: aiohttp.ClientSession) -> None:
    """Stops what dead processes left open; what cannot be reached now is left for the next time."""
    notes = sessions.left_behind()
    try:
        async with asyncio.TaskGroup() as tasks:
            for number, note in enumerate(notes):
                tasks.create_task(_stop(note, http), name=f"gladia:orphan:{number}")
    finally:
        for note in notes:
            note.leave()


async def _stop(note: Note, http: aiohttp.ClientSession) -> None:
    ending: list[Closed] = []
    socket = Socket(
        http,
        note.url,
        on_open=lambda: socket.send(STOP_RECORDING),
        on_text=lambda _text: None,
        on_closed=ending.append,
    )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await socket.run()
    may_try_again = all(after_close(how) is AfterClose.RESUME for how in ending)
    if socket.has_said_stop or not may_try_again:
        note.forget()
        logger.info("a Gladia session that a dead process left open was stopped")


def _abandoned(path: Path) -> Note | None:
    """The note in this file, if its owner is dead and the session may be open."""
    try:
        age_s = datetime.now(UTC).timestamp() - path.stat().st_mtime
        if path.name.startswith(DRAFT) and age_s < _DRAFT_LIFE_S:
            return None
        descriptor = lock(path)
        if descriptor is None:
            return None
        note = Note(path, descriptor, os.read(descriptor, _MOST_BYTES).decode(errors="replace"))
    except OSError:
        return None
    if age_s < _LONGEST_LIFE_S and note.url:
        return note
    note.forget()
    return None
