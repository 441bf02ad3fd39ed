"""Who is calling: reads the credentials of a request, never the database.

Never decides what the caller may do; that is web/access.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import jwt
from livekit.api import TokenVerifier
from starlette.requests import HTTPConnection

from core.errors import AccessError
from core.ids import Identity, Slug
from web.settings import WebSettings
from web.tokens import Signer, same_secret

USER_COOKIE = "roomscribe_user"
GUEST_COOKIE = "roomscribe_guest"

_USERS = UUID("6f1f7a52-3a0e-5c0e-9d55-0d6b1c9a2f10")
"""Name space in which a user's id is derived from the issuer's `sub`: no look-up needed."""
_MAX_JOINED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody whom an identity provider or a host product vouches for."""

    id: UUID
    subject: str
    name: str
    email: str | None = None
    picture: str | None = None
    spaces: frozenset[str] = frozenset()
    """Slugs of spaces that the token itself grants; more may be in the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A browser that we gave a cookie: its name and the sessions that it joined."""

    id: str
    name: str = ""
    joined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The holder of a room token: one identity in one session."""

    slug: Slug
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One request's caller; everything may be absent."""

    user: User | None = None
    guest: Guest | None = None
    seat: Seat | None = None
    is_service: bool = False
    is_open: bool = False
    """Open mode: whoever reaches us belongs to every space."""
    address: str = ""
    """Client address, behind trusted proxies the real one."""

    @property
    def is_known(self) -> bool:
        """Whether a credential says who this is."""
        return self.is_service or self.user is not None or self.seat is not None

    @property
    def key(self) -> str:
        """What rate limits count by: the user if known, else the address."""
        return f"user:{self.user.id}" if self.user else f"address:{self.address}"

    def has_joined(self, slug: str) -> bool:
        """Whether this caller was let into the session as a participant."""
        return (self.seat is not None and self.seat.slug == slug) or (
            self.guest is not None and slug in self.guest.joined
        )


def user_id(issuer: str, subject: str) -> UUID:
    return uuid5(_USERS, f"{issuer}\0{subject}")


def with_joined(guest: Guest, slug: str) -> Guest:
    """The guest after joining `slug`; remembers the newest sixteen sessions."""
    joined = (slug, *(other for other in guest.joined if other != slug))[:_MAX_JOINED]
    return Guest(id=guest.id, name=guest.name, joined=joined)


def guest_claims(guest: Guest) -> dict[str, Any]:
    return {"sub": guest.id, "name": guest.name, "joined": list(guest.joined)}


def profile(user: User) -> dict[str, str | None]:
    """What the database keeps of a user."""
    return {
        "subject": user.subject,
        "name": user.name,
        "email": user.email,
        "picture": user.picture,
    }


def user_claims(user: User) -> dict[str, Any]:
    return {
        "sub": user.subject,
        "uid": str(user.id),
        "name": user.name,
        "email": user.email,
        "picture": user.picture,
    }


@dataclass(slots=True, kw_only=True)
class Callers:
    """Identifies callers by bearer token, else by cookies."""

    settings: WebSettings
    signer: Signer
    _jwks: jwt.PyJWKClient | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.settings.auth_jwks_url:
            self._jwks = jwt.PyJWKClient(
                self.settings.auth_jwks_url, cache_keys=True, lifespan=600, timeout=5
            )

    @property
    def blocks(self) -> bool:
        """Whether `identify` may wait for the network and belongs into a thread."""
        return self._jwks is not None

    def anonymous(self, connection: HTTPConnection) -> Caller:
        return Caller(address=_address(connection), is_open=self.settings.auth_mode == "open")

    def identify(self, connection: HTTPConnection) -> Caller:
        """The caller of this request.

        Raises:
            AccessError: a bearer credential was given and does not hold. Cookies that do not
                hold count as absent, because browsers cannot stop sending them.
        """
        bearer = _bearer(connection.headers)
        is_open = self.settings.auth_mode == "open"
        address = _address(connection)
        guest = self._guest(connection.cookies.get(GUEST_COOKIE, ""))
        if bearer is None:
            user = self._cookie_user(connection.cookies.get(USER_COOKIE, ""))
            return Caller(user=user, guest=guest, is_open=is_open, address=address)
        if same_secret(bearer, self.settings.service_secret):
            return Caller(is_service=True, is_open=is_open, address=address)
        claims = _unverified(bearer)
        if claims.get("iss") == self.settings.livekit_api_key and "video" in claims:
            return Caller(seat=self._seat(bearer), guest=guest, is_open=is_open, address=address)
        return Caller(user=self._bearer_user(bearer), is_open=is_open, address=address)

    def _guest(self, cookie: str) -> Guest | None:
        if not cookie:
            return None
        try:
            claims = self.signer.read("guest", cookie)
        except AccessError:
            return None
        return Guest(
            id=claims["sub"], name=claims.get("name", ""), joined=tuple(claims.get("joined", ()))
        )

    def _cookie_user(self, cookie: str) -> User | None:
        if not cookie:
            return None
        try:
            claims = self.signer.read("user", cookie)
        except AccessError:
            return None
        return User(
            id=UUID(claims["uid"]),
            subject=claims["sub"],
            name=claims.get("name") or "",
            email=claims.get("email"),
            picture=claims.get("picture"),
        )

    def _seat(self, token: str) -> Seat:
        verifier = TokenVerifier(self.settings.livekit_api_key, self.settings.livekit_api_secret)
        try:
            claims = verifier.verify(token)
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as exc:
            raise AccessError("invalid_token", "the room token is not valid") from exc
        if claims.video is None or not claims.video.room_join or not claims.identity:
            raise AccessError("invalid_token", "the room token lets nobody into a room")
        return Seat(slug=Slug(claims.video.room), identity=Identity(claims.identity))

    def _bearer_user(self, token: str) -> User:
        try:
            claims = self._verified(token)
        except (jwt.PyJWTError, ValueError) as exc:
            raise AccessError("invalid_token", "the bearer token is not valid") from exc
        return _user_from(claims)

    def _verified(self, token: str) -> dict[str, Any]:
        algorithm = jwt.get_unverified_header(token).get("alg", "")
        key: Any = self.settings.auth_secret
        allowed = ["HS256"]
        if algorithm != "HS256" and self._jwks is not None:
            key = self._jwks.get_signing_key_from_jwt(token).key
            allowed = ["RS256", "PS256", "ES256", "EdDSA"]
        return jwt.decode(
            token,
            key,
            algorithms=allowed,
            audience=self.settings.auth_audience,
            issuer=self.settings.auth_issuer or None,
            leeway=30,
            options={"require": ["exp", "sub", "aud"]},
        )


def _user_from(claims: Mapping[str, Any]) -> User:
    subject = claims["sub"]
    spaces = claims.get("spaces", ())
    name = claims.get("name", "")
    picture = claims.get("picture")
    if (
        not isinstance(subject, str)
        or not subject
        or not isinstance(name, str)
        or not isinstance(spaces, list | tuple)
        or not all(isinstance(space, str) for space in spaces)
    ):
        raise AccessError("invalid_token", "the bearer token's claims have the wrong types")
    issuer = str(claims.get("iss", ""))
    return User(
        id=user_id(issuer, subject),
        subject=f"{issuer}|{subject}"[:255],
        name=name.strip()[:200],
        picture=picture if isinstance(picture, str) else None,
        spaces=frozenset(spaces),
    )


def _bearer(headers: Mapping[str, str]) -> str | None:
    """The bearer credential; "" where another scheme was used, which then fails to verify."""
    value = headers.get("authorization")
    if value is None:
        return None
    scheme, _, credential = value.partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def _unverified(token: str) -> dict[str, Any]:
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as exc:
        raise AccessError("invalid_token", "the bearer token is not valid") from exc


def _address(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else "unknown"
