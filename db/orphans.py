"""Servers that a killed supervisor left behind in a data directory.

They are found by their working directory, which PostgreSQL sets to the data directory. A pid file
is never believed: its number may belong to an innocent program by now.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

_SHUTDOWN_S = 5.0
_POLL_S = 0.02


def clear(data: Path) -> None:
    """Ends every server process in `data`, then removes the stale pid file.

    The order matters: without the pid file, nothing keeps a new server from starting beside an
    old one that still writes.
    """
    found = processes(data)
    for pid, parent in found.items():
        if parent not in found:
            _send(pid, signal.SIGINT)
    deadline = time.monotonic() + _SHUTDOWN_S
    while processes(data):
        if time.monotonic() > deadline:
            kill(data)
        time.sleep(_POLL_S)
    (data / "postmaster.pid").unlink(missing_ok=True)


def kill(data: Path) -> None:
    """Ends every server process in `data` without a word."""
    for pid in processes(data):
        _send(pid, signal.SIGKILL)


def processes(data: Path) -> dict[int, int]:
    """Pid to parent's pid of each live server process that works, or worked, in `data`."""
    names = {str(data.resolve()), f"{data.resolve()} (deleted)"}
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            if str((entry / "cwd").readlink()) in names and _is_server(entry):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = int(fields[1])
    return found


def _is_server(entry: Path) -> bool:
    return (entry / "exe").readlink().name.removesuffix(" (deleted)") == "postgres"


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
