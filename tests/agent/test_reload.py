"""`dev` starts its program again when a source changes, and ends with it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import os, signal, sys, time
with open("log", "a") as log:
    print("started", os.getpid(), file=log)
def stop(*_):
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while not os.path.exists("end"):
    time.sleep(0.02)
sys.exit(7)
"""
SUPERVISOR = """
import sys
from pathlib import Path
from agent.reload import run_reloading
sys.exit(run_reloading(["agent.py"], Path(".").absolute()))
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("agent", "core", "db"):
        (tmp_path / name).mkdir()
    (tmp_path / "agent.py").write_text(PROGRAM)
    (tmp_path / "log").touch()
    return tmp_path


@pytest.fixture
def supervisor(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SUPERVISOR], cwd=home, env={"PYTHONPATH": str(ROOT)}
    )
    yield process
    process.terminate()
    process.wait(20)


def starts(home: Path) -> int:
    return (home / "log").read_text().count("started")


def test_a_change_starts_the_program_again(
    home: Path, supervisor: "subprocess.Popen[bytes]"
) -> None:
    until(lambda: starts(home) == 1)

    def changed() -> bool:
        """Nothing says when the watch is on, so the file changes until that is seen."""
        (home / "core" / "new.py").write_text(f"x = {time.monotonic()}\n")
        time.sleep(0.5)
        return starts(home) >= 2

    until(changed)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 0


def test_its_own_end_is_ours(home: Path, supervisor: "subprocess.Popen[bytes]") -> None:
    until(lambda: starts(home) == 1)
    (home / "end").touch()
    assert supervisor.wait(20) == 7
