"""The aiohttp shell around `core.gladia` (being filled in)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp

from agent.gladia.slots import SessionSlots
from core.gladia.events import Event
from core.gladia.options import GladiaOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class GladiaAccount:
    """Where and as whom; `http` is owned by the caller and shared by all sessions."""

    api_key: str = field(repr=False)
    base_url: str
    """Such as https://api.gladia.io"""
    http: aiohttp.ClientSession


class LiveTranscription:
    """One speaker's live transcription; see the contract."""

    def __init__(
        self,
        *,
        options: GladiaOptions,
        account: GladiaAccount,
        slots: SessionSlots,
        utterance_prefix: str,
        metadata: Mapping[str, str],
        on_event: Callable[[Event], None],
    ) -> None: ...

    def push_audio(self, position: int, pcm: bytes) -> None: ...
    def push_silence(self, samples: int) -> None: ...
    def pause(self) -> None: ...
    def renew(self, reason: str) -> None: ...
    async def run(self) -> None: ...
    async def drain(self, timeout_s: float) -> None: ...
