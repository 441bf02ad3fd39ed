"""Frames of any length become chunks of about 100 ms, without copying what fits already."""


class Gatherer:
    """Collects frames that follow each other; a jump in the positions ends a chunk."""

    def __init__(self, chunk_bytes: int, wait_s: float) -> None:
        self._chunk_bytes = chunk_bytes
        self._wait_s = wait_s
        self._frames: list[bytes] = []
        self._bytes = 0
        self._position = 0
        self._due_at: float | None = None

    def add(self, position: int, pcm: bytes, now: float) -> list[tuple[int, bytes]]:
        """Takes a frame; returns the chunks that are complete, with their positions."""
        complete = []
        if self._frames and position != self._position + self._bytes // 2:
            complete.append(self._taken())
        if not self._frames:
            if self._chunk_bytes <= len(pcm) < 2 * self._chunk_bytes:
                complete.append((position, pcm))
                return complete
            self._position = position
            self._due_at = now + self._wait_s
        self._frames.append(pcm)
        self._bytes += len(pcm)
        if self._bytes >= self._chunk_bytes:
            complete += self._split(*self._taken())
        return complete

    def flush(self) -> list[tuple[int, bytes]]:
        """What there is, however short."""
        return [self._taken()] if self._frames else []

    def deadline(self) -> float | None:
        return self._due_at

    def _taken(self) -> tuple[int, bytes]:
        chunk = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
        self._frames.clear()
        self._bytes = 0
        self._due_at = None
        return self._position, chunk

    def _split(self, position: int, pcm: bytes) -> list[tuple[int, bytes]]:
        size = self._chunk_bytes
        if len(pcm) < 2 * size:
            return [(position, pcm)]
        return [
            (position + start // 2, pcm[start : start + size]) for start in range(0, len(pcm), size)
        ]
