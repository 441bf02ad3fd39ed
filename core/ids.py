"""Identifiers and their types. Randomness and time come in as arguments."""

from typing import NewType
from uuid import UUID

Slug = NewType("Slug", str)
"""A session's short name; equal to its LiveKit room name."""
Identity = NewType("Identity", str)
"""A participant's LiveKit identity, unique in a room at any time."""
TrackSid = NewType("TrackSid", str)
"""A LiveKit track's SID, new with each publication."""
UtteranceId = NewType("UtteranceId", str)
"""Unique in a session; an utterance keeps it from first interim to last revision."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_UUID7_RANDOM_BYTES = 10


def short_id(randomness: bytes) -> str:
    """One base62 character for each byte given; 8 bytes make a slug of 47 bits."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in randomness)


def uuid7(unix_ms: int, randomness: bytes) -> UUID:
    """RFC 9562 version 7: sorts by time, can be made while the database is away.

    Args:
        unix_ms: milliseconds since the epoch.
        randomness: 10 random bytes.
    """
    if len(randomness) != _UUID7_RANDOM_BYTES:
        raise ValueError("uuid7 takes 10 random bytes")
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(randomness, "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return UUID(int=value)
