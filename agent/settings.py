"""What the worker is told by its environment, checked as a whole before anything starts.

Each field's `metadata["env"]` names its variable and `metadata["doc"]` explains it; the table in
the README is tested against them. Secrets never show in `repr`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from agent.language_model import ModelSettings
from core.env import Env
from core.gladia.options import GladiaOptions
from core.gladia.settings import options_from_env
from core.shared_secrets import auth_secret, service_secret
from db.pool import DatabaseSettings, data_home

Mode = Literal["dev", "start", "connect"]
Executor = Literal["process", "thread"]
VadBackend = Literal["native", "silero"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_GET_KEY = "create one at https://app.gladia.io"


def _env(name: str, doc: str) -> dict[str, str]:
    return {"env": name, "doc": doc}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the worker needs. Can be pickled: job processes get it from the worker."""

    livekit_url: str = field(
        metadata=_env("LIVEKIT_URL", "address of the LiveKit server, `ws://` or `wss://`")
    )
    livekit_api_key: str = field(metadata=_env("LIVEKIT_API_KEY", "key of the LiveKit project"))
    livekit_api_secret: str = field(repr=False, metadata=_env("LIVEKIT_API_SECRET", "its secret"))
    agent_name: str = field(
        metadata=_env(
            "LIVEKIT_AGENT_NAME",
            "empty: a bot joins each room. Set: only rooms that ask for this name",
        )
    )
    display_name: str = field(metadata=_env("AGENT_NAME", "name that people see in the room"))
    hidden: bool = field(
        metadata=_env("AGENT_HIDDEN", "1: the bot is not in the list of participants")
    )
    executor: Executor = field(
        metadata=_env(
            "AGENT_EXECUTOR",
            "`process`: one process per room. `thread`: less memory, less isolation",
        )
    )
    max_rooms: int = field(
        metadata=_env("AGENT_MAX_ROOMS", "rooms at the same time in this worker")
    )
    screen_share_audio: bool = field(
        metadata=_env("TRANSCRIBE_SCREEN_SHARE", "1: transcribe the sound of shared screens too")
    )
    gladia_api_key: str = field(
        repr=False, metadata=_env("GLADIA_API_KEY", "key of the Gladia account")
    )
    gladia_api_url: str = field(metadata=_env("GLADIA_API_URL", "base address of Gladia's API"))
    gladia_max_sessions: int = field(
        metadata=_env(
            "GLADIA_MAX_SESSIONS",
            "live sessions at the same time on this host; more wait in a queue",
        )
    )
    gladia: GladiaOptions = field(
        metadata=_env("GLADIA_*", "options of the live session, see docs/gladia.md")
    )
    vad_backend: VadBackend = field(
        metadata=_env(
            "VAD_BACKEND", "`native`: LiveKit's bundled Silero. `silero`: the ONNX plugin"
        )
    )
    database: DatabaseSettings = field(
        metadata=_env(
            "DATABASE_URL",
            "PostgreSQL 15-18. `embedded:` or `embedded:///path`: our own; default with `dev`",
        )
    )
    redis_url: str = field(
        repr=False, metadata=_env("REDIS_URL", "live lines travel by Redis instead of PostgreSQL")
    )
    ws_server_url: str = field(
        metadata=_env(
            "WS_SERVER_URL",
            "web service that live lines are posted to while PostgreSQL or Redis is away",
        )
    )
    service_secret: str = field(
        repr=False,
        metadata=_env(
            "SERVICE_SECRET",
            "shown to that web service; empty: derived from AUTH_SECRET",
        ),
    )
    batch_seconds: float = field(
        metadata=_env(
            "TRANSCRIPT_BATCH_SECONDS", "longest wait of a stored line before it is in PostgreSQL"
        )
    )
    batch_size: int = field(
        metadata=_env("TRANSCRIPT_BATCH_SIZE", "lines that are moved without waiting longer")
    )
    data_dir: Path = field(
        metadata=_env("ROOMSCRIBE_DATA_DIR", "journal, embedded PostgreSQL and locks; one per host")
    )
    fallback_after_s: float = field(
        metadata=_env(
            "FALLBACK_AFTER_SECONDS",
            "a room without a bot for so long is carried by LiveKit Egress",
        )
    )
    drain_timeout_s: float = field(
        metadata=_env(
            "DRAIN_TIMEOUT",
            "seconds after SIGTERM that rooms may take to end by themselves; then handed over",
        )
    )
    connect_timeout_s: float = field(
        metadata=_env(
            "CONNECT_TIMEOUT",
            "seconds to register with LiveKit before `start` gives up and exits 1",
        )
    )
    health_host: str = field(
        metadata=_env("HEALTH_HOST", "address of the health and metrics servers")
    )
    health_port: int = field(
        metadata=_env("HEALTH_PORT", "`GET /` of the framework; 0: any free port")
    )
    metrics_port: int = field(
        metadata=_env("METRICS_PORT", "`GET /metrics` and `GET /ready`; 0: any free port")
    )
    log_level: str = field(metadata=_env("LOG_LEVEL", f"one of {', '.join(_LEVELS)}"))
    recap_after_s: float = field(
        metadata=_env("RECAP_AFTER_SECONDS", "from a session's end until its recap is written")
    )
    model: ModelSettings = field(
        metadata=_env("OPENAI_*", "the language model for insights, see docs/insights.md")
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], mode: Mode = "start") -> "Settings":
        """Reads all settings.

        Raises:
            ConfigError: with every problem, not only the first.
        """
        env = Env(environ)
        dev = mode != "start"
        secret = env.text("LIVEKIT_API_SECRET")
        settings = cls(
            livekit_url=_livekit_url(env),
            livekit_api_key=env.required("LIVEKIT_API_KEY", "the key of your LiveKit project"),
            livekit_api_secret=env.required("LIVEKIT_API_SECRET", "the secret of that key"),
            agent_name=env.text("LIVEKIT_AGENT_NAME"),
            display_name=env.text("AGENT_NAME", "Roomscribe"),
            hidden=env.flag("AGENT_HIDDEN", default=False),
            executor=_executor(env),
            max_rooms=env.integer("AGENT_MAX_ROOMS", 25, low=1, high=1000),
            screen_share_audio=env.flag("TRANSCRIBE_SCREEN_SHARE", default=False),
            gladia_api_key=env.required("GLADIA_API_KEY", _GET_KEY),
            gladia_api_url=_http_url(env, "GLADIA_API_URL", "https://api.gladia.io"),
            gladia_max_sessions=env.integer("GLADIA_MAX_SESSIONS", 30, low=1, high=10_000),
            gladia=options_from_env(env),
            vad_backend=_vad_backend(env),
            database=DatabaseSettings.from_env(
                env, application="worker", embedded_by_default=dev, pool_size=3
            ),
            redis_url=_redis_url(env),
            ws_server_url=_http_url(env, "WS_SERVER_URL", ""),
            service_secret=service_secret(env, auth_secret(env, secret)),
            batch_seconds=env.number("TRANSCRIPT_BATCH_SECONDS", 5.0, low=0.05, high=60),
            batch_size=env.integer("TRANSCRIPT_BATCH_SIZE", 10, low=1, high=1000),
            data_dir=data_home(env),
            fallback_after_s=env.number("FALLBACK_AFTER_SECONDS", 20.0, low=5, high=3600),
            drain_timeout_s=env.number("DRAIN_TIMEOUT", 0.0, low=0, high=86_400),
            connect_timeout_s=env.number("CONNECT_TIMEOUT", 60.0, low=1, high=3600),
            health_host=env.text("HEALTH_HOST", "127.0.0.1"),
            health_port=env.integer("HEALTH_PORT", 0 if dev else 8081, low=0, high=65_535),
            metrics_port=env.integer("METRICS_PORT", 0 if dev else 8082, low=0, high=65_535),
            log_level=env.choice("LOG_LEVEL", "INFO", _LEVELS),
            recap_after_s=env.number("RECAP_AFTER_SECONDS", 30.0, low=0, high=86_400),
            model=ModelSettings.from_env(env),
        )
        env.check()
        return settings

    @property
    def journal_path(self) -> Path:
        return self.data_dir / "journal.sqlite3"

    @property
    def slots_dir(self) -> Path:
        """Where the processes of this host count their live sessions."""
        return self.data_dir / "gladia-slots"

    @property
    def heard_dir(self) -> Path:
        """Where the bots of this host note until when they heard their rooms."""
        return self.data_dir / "heard"


def documented() -> list[tuple[str, str]]:
    """Variable and meaning of each setting, in order."""
    return [(item.metadata["env"], item.metadata["doc"]) for item in fields(Settings)]


def _livekit_url(env: Env) -> str:
    url = env.required("LIVEKIT_URL", "for instance wss://your-project.livekit.cloud")
    if url and not url.startswith(("ws://", "wss://", "http://", "https://")):
        env.problem("LIVEKIT_URL must begin with ws:// or wss://")
    return url


def _http_url(env: Env, name: str, default: str) -> str:
    url = env.text(name, default).rstrip("/")
    if url and not url.startswith(("http://", "https://")):
        env.problem(f"{name} must begin with http:// or https://")
    return url


def _executor(env: Env) -> Executor:
    choice = env.choice("AGENT_EXECUTOR", "process", ("process", "thread"))
    return "thread" if choice == "thread" else "process"


def _vad_backend(env: Env) -> VadBackend:
    choice = env.choice("VAD_BACKEND", "native", ("native", "silero"))
    return "silero" if choice == "silero" else "native"


def _redis_url(env: Env) -> str:
    url = env.text("REDIS_URL")
    if url and not url.startswith(("redis://", "rediss://", "unix://")):
        env.problem("REDIS_URL must begin with redis:// or rediss://")
    return url
