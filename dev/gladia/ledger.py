"""How much audio of one session the service has, and what it has said about it."""

from collections import deque

from dev.gladia.pcm import AudioReader


class AudioLedger:
    """Counts bytes over all connections; holds back what is forgotten if a drop comes first."""

    def __init__(self, reader: AudioReader, *, keep_unacked: bool) -> None:
        self._reader = reader
        self._keep = keep_unacked
        self._uncommitted: deque[tuple[int, bytes]] = deque()
        self.received_bytes = 0
        self.committed_bytes = 0
        self.audio = bytearray()
        """What the ears got, in the declared format."""

    @property
    def received_s(self) -> float:
        return self.received_bytes / self._reader.bytes_per_second

    def misaligned(self, chunk: bytes) -> bool:
        return len(chunk) % self._reader.frame_bytes != 0

    def seconds(self, position: int) -> float:
        return position / self._reader.bytes_per_second

    def receive(self, chunk: bytes) -> list[bytes]:
        """Takes a chunk; returns what may go to the ears now."""
        self.received_bytes += len(chunk)
        self._uncommitted.append((self.received_bytes, chunk))
        return self.commit(self.received_bytes) if self._keep else []

    def commit(self, position: int) -> list[bytes]:
        """The client was told about everything up to `position`: it may go to the ears."""
        chunks: list[bytes] = []
        while self._uncommitted and self._uncommitted[0][0] <= position:
            chunks.append(self._uncommitted.popleft()[1])
        for chunk in chunks:
            self.committed_bytes += len(chunk)
            self.audio += chunk
        return chunks

    def take_back(self, chunk: bytes) -> None:
        """The chunk that was received last is refused after all."""
        self.received_bytes -= len(chunk)
        if self._keep:
            self.committed_bytes -= len(chunk)
            del self.audio[len(self.audio) - len(chunk) :]
        else:
            self._uncommitted.pop()

    def drop(self) -> None:
        """The connection is gone: forgets what was not committed."""
        self._uncommitted.clear()
        self.received_bytes = self.committed_bytes
