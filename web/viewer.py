"""One viewer of a session: takes frames as fast as it reads, and is let go when it cannot.

A slow viewer loses interims first: a newer one of the same utterance replaces the one that waits.
Finals wait in order, up to a bound; beyond it, or after too long a time, the viewer is dropped
with a reason and may come back for the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from web.socket import DirectSocket

MAX_WAITING_BYTES = 1024 * 1024
MAX_BEHIND_S = 20.0
LINGER_S = 2.0

Reason = Literal["too_slow", "gone", "token_expired", "session_deleted", "too_many_messages"]
CODES: dict[Reason, int] = {
    "too_slow": 4008,
    "gone": 4009,
    "token_expired": 4401,
    "session_deleted": 4404,
    "too_many_messages": 1008,
}


@dataclass(slots=True, eq=False)
class Viewer:
    """One connection, from the moment that it is accepted."""

    socket: DirectSocket
    expires_at: float
    """Seconds since the epoch at which its token ends."""
    dropped: Reason | None = None
    replaced: int = 0
    """Interims that a newer one replaced before they could be sent."""
    _waiting: dict[str, bytes] = field(default_factory=dict)
    _waiting_bytes: int = 0
    _behind_since: float | None = None
    _write: Callable[[bytes], None] = field(init=False)

    def __post_init__(self) -> None:
        self.socket.on_drained = self._drain
        self._write = self.socket.transport.write  # the shortest way, taken for every line

    def send(self, key: str, frame: bytes) -> None:
        """Sends the frame, or lets it wait in place of an older one with the same `key`."""
        if not (self.socket.is_full or self._waiting):
            self._write(frame)
            return
        if self.dropped is not None:
            return
        if self._behind_since is None:
            self._behind_since = self.socket.loop.time()
        older = self._waiting.get(key)
        if older is not None:
            self.replaced += 1
            self._waiting_bytes -= len(older)
        self._waiting[key] = frame
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.drop("too_slow")

    def is_late(self, now: float) -> bool:
        """Whether it has been behind for longer than we wait; `now` in the loop's seconds."""
        return self._behind_since is not None and now - self._behind_since > MAX_BEHIND_S

    def drop(self, reason: Reason) -> None:
        """Closes the connection with a code that says why."""
        if self.dropped is None:
            self.dropped = reason
            self._write = _nowhere
            self._waiting.clear()
            self._waiting_bytes = 0
            self.socket.close(CODES[reason], reason, linger_s=LINGER_S)

    def _drain(self) -> None:
        while self._waiting and not self.socket.is_full:
            key = next(iter(self._waiting))
            frame = self._waiting.pop(key)
            self._waiting_bytes -= len(frame)
            self._write(frame)
        if not self._waiting:
            self._behind_since = None


def _nowhere(_frame: bytes) -> None:
    """Where frames go after the goodbye."""
