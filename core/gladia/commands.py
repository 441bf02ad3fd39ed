"""What a live session asks its shell to do, and what the shell answers.

`leg` numbers one Gladia live session of this speaker, `connection` one WebSocket; both are never
used twice. The shell runs commands in order. It answers late or never without harm: every wait of
the core has a deadline of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class AcquireSlot:
    """Wait for the right to open a session; answer with `slot_granted(leg)`."""

    leg: int


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """Give the slot back, or leave the queue for it."""

    leg: int


@dataclass(frozen=True, slots=True)
class CreateSession:
    """POST /v2/live; answer with `post_result(leg, outcome)`."""

    leg: int
    body: Mapping[str, Any]
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Disown:
    """This session is open, and this speaker has no use for it: see that it is stopped."""

    url: str
    """A secret, as in `Connect`."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the WebSocket; answer with `connection_made`, or `connection_lost` with the status."""

    connection: int
    url: str
    """A secret: its token is the only credential of the socket."""


@dataclass(frozen=True, slots=True)
class SendAudio:
    """Send one binary frame of whole samples."""

    connection: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SendText:
    """Send one text frame."""

    connection: int
    text: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the WebSocket, or stop opening it. Nothing about it is reported afterwards."""

    connection: int


@dataclass(frozen=True, slots=True)
class FetchResult:
    """GET /v2/live/{id}; answer with `result_fetched(leg, outcome)`."""

    leg: int
    session_id: str


Command: TypeAlias = (
    AcquireSlot
    | ReleaseSlot
    | CreateSession
    | Disown
    | Connect
    | SendAudio
    | SendText
    | Disconnect
    | FetchResult
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of Gladia, read whole."""

    status: int
    body: str
    retry_after_s: float | None = None
    """Seconds of the Retry-After header, where it was a number."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request failed before there was an answer: DNS, TCP, TLS or time-out."""

    detail: str


HttpOutcome: TypeAlias = Answer | NoAnswer


@dataclass(frozen=True, slots=True)
class Closed:
    """How a WebSocket ended, or failed to begin."""

    code: int | None = None
    """Close code of the peer; 1006 where there was none."""
    reason: str = ""
    status: int | None = None
    """HTTP status of a refused handshake."""
    opened: bool = True
    """False where the handshake never succeeded."""
