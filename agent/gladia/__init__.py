"""Gladia live transcription: a LiveKit STT plugin over the pure core.

`from agent.gladia import STT` brings the framework in; the shell alone does without it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.gladia.stt import STT

__all__ = ["STT"]


def __getattr__(name: str) -> object:
    if name == "STT":
        from agent.gladia.stt import STT

        return STT
    raise AttributeError(name)
