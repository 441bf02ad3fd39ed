"""The ways in, as far as the ingest steers them, and what it says about a session."""

from dataclasses import dataclass
from typing import Literal, Protocol


class Port(Protocol):
    """The RTMP port."""

    def publishing(self, slug: str) -> bool:
        """Whether somebody publishes this session's mix now."""

    def evict(self, slug: str, reason: str) -> None:
        """Ends that publish."""


class Tracks(Protocol):
    """The track endpoint."""

    async def evict(self, slug: str) -> None:
        """Ends all tracks of the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What carries a session's audio to us now."""

    state: Literal["starting", "running", "stopping", "off"]
    source: Literal["rtmp", "track"] | None = None
    egress_ids: tuple[str, ...] = ()
