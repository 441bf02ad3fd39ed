"""What the ingest is told by its environment; the rest it shares with the worker and the web."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from core.env import Env

FallbackMode = Literal["auto", "composite", "tracks", "off"]
_MODES: tuple[FallbackMode, ...] = ("auto", "composite", "tracks", "off")


def _env(name: str, doc: str) -> dict[str, str]:
    return {"env": name, "doc": doc}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """Where audio comes in, and how LiveKit Egress finds the way."""

    rtmp_bind: str = field(
        metadata=_env("RTMP_BIND", "address of the RTMP port; default: that of `HOST`")
    )
    rtmp_port: int = field(metadata=_env("RTMP_PORT", "RTMP port; 0: any free one"))
    rtmp_host: str = field(
        metadata=_env("RTMP_HOST", "public host name of the RTMP port, as LiveKit Egress sees it")
    )
    rtmp_external_port: int = field(
        metadata=_env(
            "RTMP_EXTERNAL_PORT", "its public port, behind a TCP proxy; default: the port"
        )
    )
    rtmp_tls_cert: str = field(
        metadata=_env("RTMP_TLS_CERT", "certificate file: the port speaks RTMPS")
    )
    rtmp_tls_key: str = field(metadata=_env("RTMP_TLS_KEY", "key file of the certificate"))
    rtmp_push_url: str = field(
        metadata=_env("RTMP_PUSH_URL", "external RTMP server that Egress pushes to; `{key}`")
    )
    rtmp_pull_url: str = field(
        metadata=_env("RTMP_PULL_URL", "external RTMP server that FFmpeg pulls from; `{key}`")
    )
    egress_ws_url: str = field(
        metadata=_env("EGRESS_WS_URL", "public ws:// address of the web service, for Track Egress")
    )
    fallback_mode: FallbackMode = field(
        metadata=_env(
            "FALLBACK_MODE", f"{', '.join(_MODES)}; the kind of egress that is tried first"
        )
    )
    fallback_after_s: float = field(
        metadata=_env("FALLBACK_AFTER_SECONDS", "a room without a bot for so long gets an egress")
    )
    ffmpeg: str = field(
        metadata=_env("FFMPEG_PATH", "ffmpeg binary; default: PATH. `pyav`: the built-in decoder")
    )
    ws_server_url: str = field(
        metadata=_env("WS_SERVER_URL", "web service that lines are posted to, in `http` mode")
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "IngestSettings":
        """Reads all settings.

        Raises:
            ConfigError: with every problem found.
        """
        env = Env(environ)
        port = env.integer("RTMP_PORT", 1937, low=0, high=65_535)
        web_port = env.integer("PORT", 3000, low=0, high=65_535)
        mode = env.choice("FALLBACK_MODE", "auto", _MODES)
        settings = cls(
            rtmp_bind=env.text("RTMP_BIND", env.text("HOST", "127.0.0.1")),
            rtmp_port=port,
            rtmp_host=env.text("RTMP_HOST", "127.0.0.1"),
            rtmp_external_port=env.integer("RTMP_EXTERNAL_PORT", 0, low=0, high=65_535),
            rtmp_tls_cert=env.text("RTMP_TLS_CERT"),
            rtmp_tls_key=env.text("RTMP_TLS_KEY"),
            rtmp_push_url=env.text("RTMP_PUSH_URL"),
            rtmp_pull_url=env.text("RTMP_PULL_URL"),
            egress_ws_url=env.text("EGRESS_WS_URL", _ws_url(env.text("PUBLIC_URL"), web_port)),
            fallback_mode=next(one for one in _MODES if one == mode),
            fallback_after_s=env.number("FALLBACK_AFTER_SECONDS", 20.0, low=5, high=3600),
            ffmpeg=env.text("FFMPEG_PATH"),
            ws_server_url=env.text("WS_SERVER_URL").rstrip("/"),
        )
        if bool(settings.rtmp_tls_cert) != bool(settings.rtmp_tls_key):
            env.problem("RTMP_TLS_CERT and RTMP_TLS_KEY go together")
        if bool(settings.rtmp_push_url) != bool(settings.rtmp_pull_url):
            env.problem("RTMP_PUSH_URL and RTMP_PULL_URL go together")
        for name in ("RTMP_PUSH_URL", "RTMP_PULL_URL"):
            if env.text(name) and "{key}" not in env.text(name):
                env.problem(f"{name} must contain {{key}}")
        env.check()
        return settings

    def without_web_server(self) -> "IngestSettings":
        """The same for `REALTIME_BROADCAST_MODE=direct`: lines go to the bus."""
        return replace(self, ws_server_url="")

    def rtmp_url(self, slug: str, token: str, port: int) -> str:
        """Where Egress pushes the mix of a session.

        Args:
            slug: the session.
            token: its key.
            port: the port that was opened.
        """
        if self.rtmp_push_url:
            return self.rtmp_push_url.replace("{key}", f"{slug}?token={token}")
        scheme = "rtmps" if self.rtmp_tls_cert else "rtmp"
        public = self.rtmp_external_port or port
        return f"{scheme}://{self.rtmp_host}:{public}/session/{slug}?token={token}"

    def track_url(self, slug: str, track_sid: str, token: str) -> str:
        """Where Egress sends one track."""
        return f"{self.egress_ws_url}/egress/audio/{slug}/{track_sid}?token={token}"

    def unreachable(self, livekit_url: str) -> bool:
        """Whether LiveKit runs elsewhere while our public address is a private one."""
        return not _is_private(_host(livekit_url)) and _is_private(self.rtmp_host)


def documented() -> list[tuple[str, str]]:
    """Variable and meaning of each setting, in order."""
    return [(item.metadata["env"], item.metadata["doc"]) for item in fields(IngestSettings)]


def _ws_url(public_url: str, port: int) -> str:
    return (public_url or f"http://127.0.0.1:{port}").rstrip("/").replace("http", "ws", 1)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0]


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".local", ".internal")) or "." not in host
