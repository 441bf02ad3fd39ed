"""What the web service is told by its environment, checked as a whole before anything starts.

Each field's `metadata["env"]` names its variable and `metadata["doc"]` explains it; the table in
the README is tested against them.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from core.env import Env
from core.shared_secrets import auth_secret as auth_secret_of
from core.shared_secrets import derived
from core.shared_secrets import service_secret as service_secret_of
from db.pool import DatabaseSettings

ServerMode = Literal["all", "ws", "rtmp"]
BroadcastMode = Literal["direct", "http"]
AuthMode = Literal["open", "closed"]

_DAY_S = 86_400


def _env(name: str, doc: str) -> dict[str, str]:
    return {"env": name, "doc": doc}


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """The OpenID Connect provider that signs people in."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: str = "openid profile email"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Everything that `python -m web` needs; secrets never show in `repr`."""

    host: str = field(
        metadata=_env(
            "HOST",
            "address to listen on; with AUTH_MODE=open only a loopback address",
        )
    )
    port: int = field(metadata=_env("PORT", "port to listen on; 0 takes a free one"))
    public_url: str = field(
        metadata=_env(
            "PUBLIC_URL",
            "scheme and host under which browsers reach us; https makes cookies "
            "`Secure`. Empty: taken from each request",
        )
    )
    server_mode: ServerMode = field(
        metadata=_env(
            "SERVER_MODE",
            "`all`: everything in one process. `ws`: without ingest. `rtmp`: ingest only",
        )
    )
    broadcast_mode: BroadcastMode = field(
        metadata=_env(
            "REALTIME_BROADCAST_MODE",
            "`direct`: the ingest's lines stay in this process. `http`: it posts "
            "them to WS_SERVER_URL",
        )
    )
    database: DatabaseSettings = field(
        metadata=_env(
            "DATABASE_URL",
            "`postgresql://...`, or `embedded:`; needed with AUTH_MODE=closed",
        )
    )
    redis_url: str = field(
        repr=False,
        metadata=_env(
            "REDIS_URL",
            "Redis for the bus and the rate limits; empty: PostgreSQL and memory",
        ),
    )
    livekit_url: str = field(
        metadata=_env(
            "LIVEKIT_URL",
            "address of the LiveKit server, `ws://` or `wss://`",
        )
    )
    livekit_public_url: str = field(
        metadata=_env(
            "LIVEKIT_PUBLIC_URL",
            "what browsers are told instead, where they reach it by another address",
        )
    )
    livekit_api_key: str = field(metadata=_env("LIVEKIT_API_KEY", "key of the LiveKit project"))
    livekit_api_secret: str = field(repr=False, metadata=_env("LIVEKIT_API_SECRET", "its secret"))
    transcription_configured: bool = field(
        metadata=_env(
            "GLADIA_API_KEY",
            "key of the Gladia account; the web service only looks whether there is one",
        )
    )
    auth_mode: AuthMode = field(
        metadata=_env(
            "AUTH_MODE",
            "`open`: everybody may do everything, on one machine. `closed`: users, "
            "guests and secrets",
        )
    )
    auth_secret: str = field(
        repr=False,
        metadata=_env(
            "AUTH_SECRET",
            "signs cookies and tokens, 32 characters at least; the old name "
            "NEXTAUTH_SECRET is accepted",
        ),
    )
    auth_audience: str = field(
        metadata=_env(
            "AUTH_AUDIENCE",
            "`aud` that a host product's tokens must carry",
        )
    )
    auth_issuer: str = field(
        metadata=_env(
            "AUTH_ISSUER",
            "`iss` that they must carry; empty: not checked",
        )
    )
    auth_jwks_url: str = field(
        metadata=_env(
            "AUTH_JWKS_URL",
            "public keys of a host product that signs with its own",
        )
    )
    auth_default_space: str = field(
        metadata=_env(
            "AUTH_DEFAULT_SPACE",
            "slug of the space that everybody who signs in belongs to; empty: none",
        )
    )
    oidc: OidcSettings | None = field(
        metadata=_env(
            "OIDC_ISSUER",
            "OpenID Connect provider, with OIDC_CLIENT_ID, OIDC_CLIENT_SECRET and OIDC_SCOPES",
        )
    )
    service_secret: str = field(
        repr=False,
        metadata=_env(
            "SERVICE_SECRET",
            "secret of our own processes; empty: derived from AUTH_SECRET",
        ),
    )
    trusted_proxies: tuple[str, ...] = field(
        metadata=_env(
            "TRUSTED_PROXIES",
            "addresses or networks whose X-Forwarded headers are believed",
        )
    )
    cors_origins: tuple[str, ...] = field(
        metadata=_env(
            "CORS_ORIGINS",
            "origins of other sites whose pages may call us",
        )
    )
    rate_limit_factor: float = field(
        metadata=_env(
            "RATE_LIMIT_FACTOR",
            "multiplies every rate limit; 0 switches them off",
        )
    )
    viewers_per_session: int = field(
        metadata=_env(
            "VIEWERS_PER_SESSION",
            "WebSocket viewers of one session in one process",
        )
    )
    token_ttl_s: int = field(
        metadata=_env(
            "TOKEN_TTL_SECONDS",
            "seconds that room tokens and transcription tokens live",
        )
    )
    session_grace_s: float = field(
        metadata=_env(
            "SESSION_GRACE_SECONDS",
            "seconds after the end of its room after which a session ends",
        )
    )
    consent_text: str = field(
        metadata=_env(
            "CONSENT_TEXT",
            "what people are told about the transcription; stands in every export",
        )
    )
    languages: tuple[str, ...] = field(
        metadata=_env(
            "GLADIA_LANGUAGES",
            "languages that the page offers first",
        )
    )
    webhook_urls: tuple[str, ...] = field(
        metadata=_env(
            "WEBHOOK_URLS",
            "addresses that get `session.ended` and `transcript.ready`",
        )
    )
    webhook_secret: str = field(
        repr=False,
        metadata=_env(
            "WEBHOOK_SECRET",
            "signs them; empty: derived from AUTH_SECRET",
        ),
    )
    metrics_sources: tuple[str, ...] = field(
        metadata=_env(
            "METRICS_SOURCES",
            "Prometheus addresses of our other processes, gathered into our /metrics",
        )
    )
    metrics_secret: str = field(
        repr=False,
        metadata=_env(
            "METRICS_SECRET",
            "bearer secret that /metrics asks for; empty: none",
        ),
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, pid: int = 0) -> "WebSettings":
        """Reads all settings; `pid` only names us in the database's list of sessions.

        Raises:
            ConfigError: with every problem found.
        """
        env = Env(environ)
        auth_mode: AuthMode = (
            "closed" if env.choice("AUTH_MODE", "open", ("open", "closed")) == "closed" else "open"
        )
        host = env.text("HOST", "127.0.0.1")
        if auth_mode == "open" and not _is_loopback(host):
            _demand_consent_to_open(env)
        livekit_url = env.required("LIVEKIT_URL", "ws:// or wss:// address of LiveKit")
        api_secret = env.required("LIVEKIT_API_SECRET", "the secret that belongs to the key")
        auth_secret = auth_secret_of(env, api_secret, required=auth_mode == "closed")
        settings = cls(
            host=host,
            port=env.integer("PORT", 3000, low=0, high=65535),
            public_url=_url(env, "PUBLIC_URL", ("http", "https")).rstrip("/"),
            server_mode=_server_mode(env),
            broadcast_mode=(
                "http"
                if env.choice("REALTIME_BROADCAST_MODE", "direct", ("direct", "http")) == "http"
                else "direct"
            ),
            database=DatabaseSettings.from_env(
                env, application=f"web:{pid}", embedded_by_default=auth_mode == "open", pool_size=8
            ),
            redis_url=env.text("REDIS_URL"),
            livekit_url=livekit_url,
            livekit_public_url=env.text("LIVEKIT_PUBLIC_URL", livekit_url),
            livekit_api_key=env.required("LIVEKIT_API_KEY", "the key of the LiveKit project"),
            livekit_api_secret=api_secret,
            transcription_configured=bool(env.text("GLADIA_API_KEY")),
            auth_mode=auth_mode,
            auth_secret=auth_secret,
            auth_audience=env.text("AUTH_AUDIENCE", "roomscribe"),
            auth_issuer=env.text("AUTH_ISSUER"),
            auth_jwks_url=_url(env, "AUTH_JWKS_URL", ("http", "https")),
            auth_default_space=env.text("AUTH_DEFAULT_SPACE", "default"),
            oidc=_oidc(env),
            service_secret=service_secret_of(env, auth_secret),
            trusted_proxies=env.words("TRUSTED_PROXIES"),
            cors_origins=env.words("CORS_ORIGINS"),
            rate_limit_factor=env.number("RATE_LIMIT_FACTOR", 1.0, low=0.0, high=10_000.0),
            viewers_per_session=env.integer("VIEWERS_PER_SESSION", 2000, low=1, high=100_000),
            token_ttl_s=env.integer("TOKEN_TTL_SECONDS", 6 * 3600, low=60, high=7 * _DAY_S),
            session_grace_s=env.number("SESSION_GRACE_SECONDS", 300.0, low=0.0, high=_DAY_S),
            consent_text=env.text("CONSENT_TEXT", "This meeting is transcribed."),
            languages=env.words("GLADIA_LANGUAGES"),
            webhook_urls=env.words("WEBHOOK_URLS"),
            webhook_secret=env.text("WEBHOOK_SECRET", derived(auth_secret, "webhooks")),
            metrics_sources=env.words("METRICS_SOURCES"),
            metrics_secret=env.text("METRICS_SECRET"),
        )
        env.check()
        return settings

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach us by https, so that cookies may be `Secure`."""
        return self.public_url.startswith("https://")


def _server_mode(env: Env) -> ServerMode:
    mode = env.choice("SERVER_MODE", "all", ("all", "ws", "rtmp"))
    return "ws" if mode == "ws" else "rtmp" if mode == "rtmp" else "all"


def _demand_consent_to_open(env: Env) -> None:
    if not env.flag("AUTH_OPEN_ANYWHERE", default=False):
        env.problem(
            "HOST is not a loopback address while AUTH_MODE=open lets everybody do everything: "
            "set AUTH_MODE=closed, or AUTH_OPEN_ANYWHERE=1 if the network itself is closed"
        )


def _oidc(env: Env) -> OidcSettings | None:
    issuer = _url(env, "OIDC_ISSUER", ("http", "https"))
    if not issuer:
        return None
    return OidcSettings(
        issuer=issuer,
        client_id=env.required("OIDC_CLIENT_ID", "OIDC_ISSUER is set; register a client there"),
        client_secret=env.required("OIDC_CLIENT_SECRET", "the secret of OIDC_CLIENT_ID"),
        scopes=env.text("OIDC_SCOPES", "openid profile email"),
    )


def _url(env: Env, name: str, schemes: tuple[str, ...]) -> str:
    value = env.text(name)
    if value and (urlsplit(value).scheme not in schemes or not urlsplit(value).netloc):
        env.problem(f"{name} must be an address that starts with {' or '.join(schemes)}://")
        return ""
    return value


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
