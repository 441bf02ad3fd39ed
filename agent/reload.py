"""`dev`: runs the worker in a child process and starts it again when a source file changes."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT, SIGTERM, signal
from types import FrameType
from typing import Final

from watchfiles import PythonFilter, watch

_SOURCES: Final = ("agent.py", "agent", "core", "db")
_STOP_S: Final = 28.0
_DEBOUNCE_MS: Final = 400


def run_reloading(command: Sequence[str], root: Path) -> int:
    """Runs `python command` until it ends by itself or a signal ends us; returns its exit code.

    The rooms of a worker that is restarted get a bot again from the steward.
    """
    stopping = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (SIGINT, SIGTERM):
        signal(number, on_signal)
    child = _start(command)
    try:
        for _ in watch(
            *(root / name for name in _SOURCES),
            watch_filter=PythonFilter(),
            stop_event=_AnyEnd(stopping, child_ended := _Ended(child)),
            step=50,
            debounce=_DEBOUNCE_MS,
            raise_interrupt=False,
        ):
            _stop(child)
            child = _start(command)
            child_ended.child = child
    finally:
        _stop(child)
    return child.returncode if not stopping.is_set() else max(child.returncode, 0)


class _Ended:
    """Whether the present child ended by itself."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child

    def is_set(self) -> bool:
        return self.child.poll() is not None


class _AnyEnd:
    """An event that is set as soon as one of two is; all that `watch` asks of an event."""

    def __init__(self, first: threading.Event, second: _Ended) -> None:
        self._first = first
        self._second = second

    def is_set(self) -> bool:
        return self._first.is_set() or self._second.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._first.wait(timeout) or self.is_set()

    def set(self) -> None:
        self._first.set()


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, *command])  # noqa: S603 - our own program


def _stop(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
