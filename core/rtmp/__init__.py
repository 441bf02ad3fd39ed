"""RTMP as a publisher's far side, without a socket: bytes and time in, bytes and audio tags out.

Only what a publisher needs: handshake, `connect`, `createStream`, `publish`, media, and the end.
Rules and limits are those of `Limits`; who may publish is the caller's decision.
"""

from core.rtmp.limits import Limits
from core.rtmp.session import (
    AudioTag,
    Close,
    Command,
    Event,
    Ignored,
    PauseReading,
    PublishEnded,
    PublishRequested,
    ResumeReading,
    Send,
    Session,
    State,
)

__all__ = [
    "AudioTag",
    "Close",
    "Command",
    "Event",
    "Ignored",
    "Limits",
    "PauseReading",
    "PublishEnded",
    "PublishRequested",
    "ResumeReading",
    "Send",
    "Session",
    "State",
]
