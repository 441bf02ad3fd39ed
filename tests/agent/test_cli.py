"""The command line as a program: what it prints and which code it exits with."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BARE = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp")}


def run(*arguments: str, timeout_s: float = 50, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "agent.py", *arguments],
        cwd=ROOT,
        env=BARE | environ,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_help_names_the_commands() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("dev", "start", "connect"):
        assert command in done.stdout


def test_a_wrong_configuration_exits_2_and_says_everything() -> None:
    done = run("start", LIVEKIT_URL="example.com", VAD_BACKEND="loud")
    assert done.returncode == 2
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "GLADIA_API_KEY", "DATABASE_URL", "VAD_BACKEND"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_command_exits_2() -> None:
    assert run("sing").returncode == 2


async def test_an_unreachable_livekit_exits_1(state_dir: Path, database_url: str) -> None:
    done = await asyncio.to_thread(
        run,
        "start",
        LIVEKIT_URL=f"ws://{nobody_listens()}",
        LIVEKIT_API_KEY="key",
        LIVEKIT_API_SECRET="secret-secret-secret-secret-secret!",
        GLADIA_API_KEY="key",
        DATABASE_URL=database_url,
        ROOMSCRIBE_DATA_DIR=str(state_dir),
        HEALTH_PORT="0",
        METRICS_PORT="0",
        CONNECT_TIMEOUT="1",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "could not register with LiveKit" in done.stdout
    assert "secret-secret" not in done.stdout + done.stderr


async def test_a_database_that_can_never_be_used_exits_2(state_dir: Path) -> None:
    done = await asyncio.to_thread(
        run,
        "start",
        LIVEKIT_URL=f"ws://{nobody_listens()}",
        LIVEKIT_API_KEY="key",
        LIVEKIT_API_SECRET="secret-secret-secret-secret-secret!",
        GLADIA_API_KEY="key",
        DATABASE_URL="postgresql://localhost:port/roomscribe",
        ROOMSCRIBE_DATA_DIR=str(state_dir),
        HEALTH_PORT="0",
        METRICS_PORT="0",
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "configuration is wrong" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
