"""The worker's settings: everything wrong is said at once, and no secret is ever shown."""

import pickle
from pathlib import Path

import pytest

from agent.settings import Settings, documented
from core.errors import ConfigError

GOOD = {
    "LIVEKIT_URL": "wss://example.livekit.cloud",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "s3cret-livekit",
    "GLADIA_API_KEY": "s3cret-gladia",
    "DATABASE_URL": "postgresql://user:s3cret-password@db/roomscribe",
    "REDIS_URL": "redis://:s3cret-redis@cache/0",
    "OPENAI_API_KEY": "s3cret-openai",
}


def problems(changes: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(GOOD | changes)
    return caught.value.problems


def test_good_settings_pass() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.livekit_url == "wss://example.livekit.cloud"
    assert settings.executor == "process"
    assert settings.vad_backend == "native"
    assert settings.gladia_max_sessions == 30
    assert (settings.batch_seconds, settings.batch_size) == (5.0, 10)
    assert settings.health_host == "127.0.0.1"


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"VAD_BACKEND": "loud", "AGENT_MAX_ROOMS": "many"})
    said = "\n".join(caught.value.problems)
    for name in (
        "LIVEKIT_URL",
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_SECRET",
        "GLADIA_API_KEY",
        "DATABASE_URL",
        "VAD_BACKEND",
        "AGENT_MAX_ROOMS",
    ):
        assert name in said


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("LIVEKIT_URL", "example.com"),
        ("GLADIA_API_URL", "api.gladia.io"),
        ("GLADIA_MAX_SESSIONS", "0"),
        ("GLADIA_ENDPOINTING", "11"),
        ("GLADIA_LANGUAGES", "klingon"),
        ("AGENT_EXECUTOR", "fork"),
        ("AGENT_HIDDEN", "maybe"),
        ("AGENT_MAX_ROOMS", "0"),
        ("DATABASE_URL", "mysql://x"),
        ("REDIS_URL", "memcached://x"),
        ("TRANSCRIPT_BATCH_SECONDS", "-1"),
        ("TRANSCRIPT_BATCH_SIZE", "1.5"),
        ("DRAIN_TIMEOUT", "soon"),
        ("CONNECT_TIMEOUT", "0"),
        ("HEALTH_PORT", "65536"),
        ("METRICS_PORT", "-1"),
        ("FALLBACK_AFTER_SECONDS", "1"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_value_is_named(name: str, bad: str) -> None:
    said = problems({name: bad})
    assert len(said) == 1
    assert name.split("_")[0] in said[0]


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings.from_env(GOOD))
    assert "s3cret" not in shown


def test_production_wants_an_explicit_database() -> None:
    environ = {key: value for key, value in GOOD.items() if key != "DATABASE_URL"}
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        Settings.from_env(environ, "start")
    assert Settings.from_env(environ, "dev").database.url == "embedded:"


def test_job_processes_get_them_by_pickle(tmp_path: Path) -> None:
    settings = Settings.from_env(GOOD | {"ROOMSCRIBE_DATA_DIR": str(tmp_path)})
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own bytes
    assert settings.journal_path.parent == tmp_path


def test_every_setting_is_explained() -> None:
    for name, doc in documented():
        assert name.isupper() or name.endswith("_*"), name
        assert len(doc) > 5, name
