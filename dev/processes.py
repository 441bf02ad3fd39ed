"""Child processes that never outlive us, and the ports they listen on.

Each child leads its own process group, so Ctrl-C reaches us alone and we stop things in order;
on Linux the kernel ends it when we are killed without a chance to do so.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_KEPT_LINES: Final = 2000
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ChildFailed(Exception):  # noqa: N818 - reads as what happened
    """A child ended, or did not become ready in time; the message ends with its last lines."""


class Child:
    """One running program whose output goes line by line to `sink`.

    Start children from the main thread: the kernel's end-with-parent rule watches the thread
    that forked. A child must be stopped by `stop`; it keeps its last 2000 lines for reports.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        sink: Callable[[str], None] = lambda _line: None,
        on_our_death: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self._sink = sink
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._changed = threading.Condition()
        self._closed = False
        self._process = subprocess.Popen(
            [str(part) for part in argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent(on_our_death),
        )
        self._reader = threading.Thread(target=self._read, name=f"output:{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative signal number, or None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """Its last lines, oldest first."""
        with self._changed:
            return "\n".join(self._lines)

    def wait_for(self, pattern: str, timeout_s: float) -> str:
        """The first kept line that matches `pattern`, waiting up to `timeout_s` for it.

        Raises:
            ChildFailed: it ended, or the time is over.
        """
        wanted = re.compile(pattern)
        found: list[str] = []

        def settled() -> bool:
            found[:] = [line for line in self._lines if wanted.search(line)][:1]
            return bool(found) or self._closed

        with self._changed:
            self._changed.wait_for(settled, timeout_s)
        if found:
            return found[0]
        state = "ended" if self._closed else f"did not print {pattern!r} in {timeout_s:.0f} s"
        raise ChildFailed(f"{self.name} {state}\n{self.tail()}")

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def last_line(self) -> str:
        """Its newest line, for progress reports."""
        with self._changed:
            return self._lines[-1] if self._lines else ""

    def tail(self, lines: int = 25) -> str:
        """The last lines, indented for a report."""
        with self._changed:
            kept = list(self._lines)[-lines:]
        return "\n".join(f"    {line}" for line in kept)

    def signal(self, number: signal.Signals) -> None:
        """Signals the program itself, not its children: it decides how they end."""
        if self.returncode is None:
            self._process.send_signal(number)

    def stop(self, grace_s: float) -> int:
        """SIGTERM, up to `grace_s` to end, then SIGKILL to all of its group. Returns its code."""
        self.signal(signal.SIGTERM)
        self.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the program and everything it started that stayed in its group."""
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._reader.join(timeout=5)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
            self._sink(line)
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether a server could listen on `port` of every interface now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - a probe, closed at once
        except OSError:
            return False
    return True


def _end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return arrange
