"""The keys that LiveKit Egress carries in its addresses: one session, one track at most, one time.

JSON Web Tokens, HS256, `aud` = `egress`, `sub` = session slug, `trk` = track SID. LiveKit shows
WebSocket addresses in its own logs and lists, so a key opens nothing but audio going in, and is
void when its session ends (the caller asks for that). Made with `hmac` alone: the ingest has no
other use for a token library.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from core.errors import AccessError

AUDIENCE = "egress"
LEEWAY_S = 30
_HEADER = {"alg": "HS256", "typ": "JWT"}
_MAX_CHARS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressClaims:
    """What a key opens."""

    slug: str
    track_sid: str | None
    """Set in keys for one track; such a key does not open the session's RTMP address."""


class EgressKeys:
    """Mints and reads keys; every process with the same secret reads them all."""

    def __init__(self, secret: str) -> None:
        """Derives the key for this purpose, as every signer of ours does."""
        label = f"roomscribe:{AUDIENCE}".encode()
        self._key = hmac.new(secret.encode(), label, hashlib.sha256).digest()

    def mint(self, slug: str, *, expires_at_s: float, track_sid: str | None = None) -> str:
        """A key for one session, or for one track of it.

        Args:
            slug: the session.
            expires_at_s: seconds since the epoch. Egress uses one address for hours.
            track_sid: None for the mixed RTMP stream.
        """
        claims: dict[str, str | int] = {"aud": AUDIENCE, "sub": slug, "exp": int(expires_at_s)}
        if track_sid is not None:
            claims["trk"] = track_sid
        signed = f"{_packed(_HEADER)}.{_packed(claims)}"
        return f"{signed}.{_base64(self._signature(signed))}"

    def read(self, token: str, now_s: float) -> EgressClaims:
        """What the key opens.

        Raises:
            AccessError: not ours, for something else, or too old; the message never says which.
        """
        claims = self._claims(token)
        slug, track, expires = claims.get("sub"), claims.get("trk"), claims.get("exp")
        valid = (
            claims.get("aud") == AUDIENCE
            and isinstance(slug, str)
            and isinstance(track, str | None)
            and isinstance(expires, int | float)
            and now_s < expires + LEEWAY_S
        )
        if not valid:
            raise _refused()
        return EgressClaims(slug=str(slug), track_sid=str(track) if track else None)

    def _claims(self, token: str) -> dict[str, object]:
        signed, _, signature = token[:_MAX_CHARS].rpartition(".")
        expected = _base64(self._signature(signed)).encode()
        if not hmac.compare_digest(expected, signature.encode()):
            raise _refused()
        header, _, body = signed.partition(".")
        if _unpacked(header).get("alg") != "HS256":
            raise _refused()
        return _unpacked(body)

    def _signature(self, signed: str) -> bytes:
        return hmac.new(self._key, signed.encode(), hashlib.sha256).digest()


def _refused() -> AccessError:
    return AccessError("invalid_key", "the key is not valid", status=403)


def _packed(value: object) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _unpacked(part: str) -> dict[str, object]:
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error) as error:
        raise _refused() from error
    if not isinstance(value, dict):
        raise _refused()
    return value


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
