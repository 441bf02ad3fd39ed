"""What the service asks of engines that live elsewhere; the composition root injects them.

Never imports an engine: where none is injected, the routes answer 503 with a code.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from livekit.api import EgressInfo

from core.ids import Identity, Slug
from core.wire import Insight

FallbackMode = Literal["auto", "composite", "tracks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackState:
    """What carries a session's audio to us, if not a bot in the room."""

    state: Literal["starting", "running", "stopping", "off"]
    source: Literal["rtmp", "track"] | None = None
    egress_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerReport:
    """One active-speaker observation of a browser in the room."""

    speakers: tuple[Identity, ...]
    """Identities that speak now, loudest first; empty in a silence."""
    at_ms: int
    """Milliseconds since the epoch on the reporter's clock."""


class FallbackEngine(Protocol):
    """Starts and stops the egress path of a session. All calls are idempotent.

    Raises:
        ProviderError: LiveKit refused or did not answer.
    """

    async def start(self, slug: Slug, mode: FallbackMode) -> FallbackState: ...
    async def stop(self, slug: Slug) -> FallbackState: ...
    def active_speakers(self, slug: Slug, reporter: Identity, report: SpeakerReport) -> None: ...
    def egress_changed(self, info: EgressInfo) -> None: ...


class InsightsEngine(Protocol):
    """The worker's insight engine, on demand.

    Raises:
        ProviderError: the language model refused or did not answer.
    """

    async def refresh(self, slug: Slug) -> Insight: ...


class RecapEngine(Protocol):
    """Writes recaps; `db.insights.recap` reads them.

    Raises:
        ProviderError: the language model gave no usable recap.
    """

    async def on_demand(self, slug: Slug) -> None: ...
