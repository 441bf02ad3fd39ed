"""Audio that memory has no room for, in a file that has no name and dies with its process."""

import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)


class FileSpill:
    """A ring of bytes in an unlinked file; implements `core.gladia.replay.Spill`.

    Opened with the first write. Writes of 3 kB go to the page cache (some microseconds), so they
    are made in the event loop. A disk that fails is full from then on, which the caller reports as
    lost audio.
    """

    def __init__(self, directory: Path, capacity_bytes: int) -> None:
        self._directory = directory
        self._capacity = capacity_bytes
        self._file: int | None = None
        self._head = 0
        self._tail = 0
        self._is_broken = False

    def write(self, pcm: bytes) -> int | None:
        """Where it was put, or None where it did not fit."""
        token = self._head
        room_at_end = self._capacity - token % self._capacity
        if room_at_end < len(pcm):
            token += room_at_end  # never wrapped: a chunk lies in one piece
        if self._is_broken or token + len(pcm) - self._tail > self._capacity:
            return None
        try:
            os.pwrite(self._descriptor(), pcm, token % self._capacity)
        except OSError:
            logger.exception("the audio spill failed, audio is kept in memory only")
            self._is_broken = True
            return None
        self._head = token + len(pcm)
        return token

    def read(self, token: int, size: int) -> bytes | None:
        """What was written; None where the disk failed."""
        try:
            pcm = os.pread(self._descriptor(), size, token % self._capacity)
        except OSError:
            logger.exception("the audio spill cannot be read")
            return None
        return pcm if len(pcm) == size else None

    def free(self, token: int, size: int) -> None:
        """The oldest bytes may be overwritten."""
        self._tail = token + size
        if self._tail == self._head:
            self.close()
            self._head = self._tail = 0

    def close(self) -> None:
        """Gives the disk space back; the spill can be used again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _descriptor(self) -> int:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file, name = tempfile.mkstemp(prefix="audio-", dir=self._directory)
            Path(name).unlink()
        return self._file
