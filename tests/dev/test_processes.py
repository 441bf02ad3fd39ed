import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from dev.processes import Child, ChildFailed, free_port, port_is_free


def python(code: str, **options: object) -> Child:
    return Child("child", [sys.executable, "-u", "-c", code], env=dict(os.environ), **options)  # type: ignore[arg-type]  # options of Child


def test_lines_reach_the_sink_in_order() -> None:
    lines: list[str] = []
    child = python("print('one'); print('two')", sink=lines.append)
    assert child.wait(10) == 0
    child.kill()
    assert lines == ["one", "two"]


def test_wait_for_finds_a_line_that_was_printed_before() -> None:
    child = python("print('ready on 1234'); import time; time.sleep(60)")
    assert child.wait_for(r"ready on \d+", 10) == "ready on 1234"
    assert child.wait_for(r"ready", 0.01) == "ready on 1234"
    child.kill()


def test_wait_for_reports_the_end_with_the_last_lines() -> None:
    child = python("print('no port'); raise SystemExit(3)")
    with pytest.raises(ChildFailed, match=r"(?s)ended.*no port"):
        child.wait_for("ready", 10)
    assert child.kill() == 3


def test_stop_asks_first() -> None:
    child = python(
        "import signal, time, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready'); time.sleep(60)"
    )
    child.wait_for("ready", 10)
    assert child.stop(10) == 7


def test_stop_kills_what_ignores_it_and_its_children() -> None:
    child = python(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('grandchild', grandchild.pid); time.sleep(60)"
    )
    grandchild = psutil.Process(int(child.wait_for("grandchild", 10).split()[1]))
    assert child.stop(0.2) == -signal.SIGKILL
    psutil.wait_procs([grandchild], timeout=10)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = python(
        "import sys, time\n"
        "from dev.processes import Child\n"
        "child = Child('c', [sys.executable, '-c', 'import time; time.sleep(60)'], env={})\n"
        "print('child', child.pid); time.sleep(60)",
        cwd=Path.cwd(),
    )
    grandchild = psutil.Process(int(parent.wait_for("child", 10).split()[1]))
    os.kill(parent.pid, signal.SIGKILL)  # the parent alone, not its group
    psutil.wait_procs([grandchild], timeout=10)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
    parent.kill()


def test_a_taken_port_is_seen() -> None:
    port = free_port()
    assert port_is_free(port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not port_is_free(port)
