"""Everything that we sign: one secret, one derived key and one audience per purpose.

A token of one purpose can never be used for another, because neither its key nor its audience
fits. Reads accept HS256 only.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import jwt

from core.errors import AccessError

Purpose = Literal["user", "guest", "transcription", "egress"]

_LEEWAY_S = 30


class Signer:
    """Mints and reads our own tokens; every process with the same secret reads them all."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def key(self, purpose: str) -> bytes:
        """The 32-byte key for `purpose`."""
        return hmac.new(self._secret, f"roomscribe:{purpose}".encode(), hashlib.sha256).digest()

    def mint(self, purpose: Purpose, claims: Mapping[str, Any], *, ttl_s: float) -> str:
        now = datetime.now(UTC)
        payload = {**claims, "aud": purpose, "iat": now, "exp": now + timedelta(seconds=ttl_s)}
        return jwt.encode(payload, self.key(purpose), algorithm="HS256")

    def read(self, purpose: Purpose, token: str) -> dict[str, Any]:
        """The claims of a token of ours.

        Raises:
            AccessError: signature, audience or expiry do not hold.
        """
        try:
            return jwt.decode(
                token,
                self.key(purpose),
                algorithms=["HS256"],
                audience=purpose,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "aud"]},
            )
        except jwt.InvalidTokenError as exc:
            raise AccessError("invalid_token", "the token is not valid") from exc

    def mark(self, purpose: str, *parts: str, length: int = 12) -> str:
        """A short proof that we joined these parts; `length` hexadecimal characters."""
        message = "\0".join(parts).encode()
        return hmac.new(self.key(purpose), message, hashlib.sha256).hexdigest()[:length]


def same_secret(given: str, expected: str) -> bool:
    """Compares in constant time; an empty `expected` matches nothing."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())
