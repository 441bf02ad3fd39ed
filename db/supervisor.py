"""The process that runs embedded PostgreSQL: `python -m db.supervisor PLAN`.

`db.embedded` starts it. It makes the cluster, clears what a killed predecessor left, runs the
server as its child, restarts it when it dies and stops it when its last user is gone. It imports
the standard library only.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from core.retry import Backoff
from db import orphans
from db.binaries import Account
from db.embedded import DATABASE, USER, Layout, lock, open_lock, same_file

_TICK_S = 0.25
_ELECTION_S = 1.0
_FAST_STOP_S = 30.0
_QUICK_STOP_S = 5.0
_MAX_LOG_BYTES = 10_000_000
_RESTART = Backoff(first_s=0.1, max_s=5.0)
_STABLE_S = 10.0
_PR_SET_PDEATHSIG = 1
_BUILTIN_LOCALE_MAJOR = 17
_IO_METHOD_MAJOR = 18
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Refused(Exception):  # noqa: N818 - reads as an answer
    """The server cannot be started here, and trying again would not help."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the starter decided."""

    layout: Layout
    binaries: Path
    major: int
    account: Account | None
    linger_s: float
    options: tuple[str, ...]

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        value = json.loads(text)
        account = value["account"]
        return cls(
            layout=Layout(Path(value["base"]), Path(value["sockets"])),
            binaries=Path(value["binaries"]),
            major=value["major"],
            account=Account(*account) if account else None,
            linger_s=value["linger_s"],
            options=tuple(value["options"]),
        )


class Supervisor:
    """Runs the server until nobody uses it."""

    def __init__(self, plan: Plan, log: int) -> None:
        self._plan = plan
        self._layout = plan.layout
        self._log = log
        self._binaries = plan.binaries
        self._supervisor = open_lock(plan.layout.supervisor)
        self._lease = open_lock(plan.layout.lease)
        self._idle_since: float | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def elected(self) -> bool:
        """Whether this is the one supervisor. Starters peek at the lock, so try for a while."""
        deadline = time.monotonic() + _ELECTION_S
        while not lock(self._supervisor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return same_file(self._supervisor, self._layout.supervisor)

    def prepare(self) -> None:
        """Makes the cluster if there is none.

        Raises:
            _Refused: the account cannot reach it, or initdb failed.
        """
        self._reach_binaries()
        if (self._layout.data / "PG_VERSION").exists():
            return
        self._put_remains_aside()
        fresh = self._layout.base / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if account := self._plan.account:
            os.chown(fresh, account.uid, account.gid)
        self._check("initdb", "-D", str(fresh), *_initdb_options(self._plan.major))
        statement = f"create database {DATABASE}\n"
        self._check("postgres", "--single", "-D", str(fresh), "postgres", given=statement)
        fresh.rename(self._layout.data)

    def run(self) -> None:
        """Keeps the server up; returns when it is down for good."""
        attempt = 0
        while not self._unwanted():
            started = time.monotonic()
            self._start()
            if self._watch():
                break
            attempt = 1 if time.monotonic() - started > _STABLE_S else attempt + 1
            delay = _RESTART.delay_s(attempt, chance=0.0)
            self._say(f"the server ended; starting it again in {delay:.1f} s")
            signal.sigtimedwait(_WATCHED[1:], delay)
        os.close(self._supervisor)
        os.close(self._lease)

    def _put_remains_aside(self) -> None:
        """A data directory without PG_VERSION is what an interrupted rm -rf left."""
        if self._layout.data.exists():
            orphans.clear(self._layout.data)
            aside = self._layout.base / f"data.incomplete-{time.time_ns()}"
            self._layout.data.rename(aside)
            self._say(f"an incomplete data directory was put aside as {aside.name}")

    def _reach_binaries(self) -> None:
        """Lets the account run the programs: copies them beside the data where it cannot.

        Opening up the parents of a virtual environment instead would change directories of others.
        """
        account, base = self._plan.account, self._layout.base
        if account is None:
            return
        if not self._can("cd", base):
            raise _Refused(
                f"the account {account.name} cannot reach {base}: choose another directory "
                "with ROOMSCRIBE_DATA_DIR, or another account with ROOMSCRIBE_PG_USER"
            )
        if self._can("test", "-x", self._binaries / "initdb"):
            return
        package = self._binaries.parent.parent
        copy = base / "programs"
        if not (copy / package.name).is_dir():
            fresh = base / "programs.new"
            shutil.rmtree(fresh, ignore_errors=True)
            for part in (package.name, f"{package.name}.libs"):  # the libraries' RPATH is relative
                if (source := package.parent / part).is_dir():
                    shutil.copytree(source, fresh / part, ignore=shutil.ignore_patterns("include"))
            fresh.chmod(0o755)
            shutil.rmtree(copy, ignore_errors=True)
            fresh.rename(copy)
        self._binaries = copy / package.name / self._binaries.parent.name / "bin"

    def _can(self, *command: str | Path) -> bool:
        script = ["/bin/sh", "-c", '"$@"', "sh", *map(str, command)]
        return self._spawn(script, subprocess.DEVNULL).wait() == 0

    def _check(self, program: str, *options: str, given: str = "") -> None:
        command = [str(self._binaries / program), *options]
        process = self._spawn(command, subprocess.PIPE, output=subprocess.PIPE)
        output, _ = process.communicate(given.encode())
        os.write(self._log, output)
        if process.returncode:
            reason = output.decode(errors="replace").strip().splitlines()[-3:]
            raise _Refused(f"{program} failed: {' '.join(reason)}; or set DATABASE_URL")

    def _spawn(
        self, command: Sequence[str], given: int, output: int | None = None
    ) -> subprocess.Popen[bytes]:
        account, parent = self._plan.account, os.getpid()
        return subprocess.Popen(  # noqa: S603 - programs that we found, no shell
            command,
            stdin=given,
            stdout=self._log if output is None else output,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=lambda: _die_with(parent),
        )

    def _start(self) -> None:
        orphans.clear(self._layout.data)
        sockets = str(self._layout.sockets).replace('"', '""')
        settings = (*_settings(self._plan.major), f'unix_socket_directories="{sockets}"')
        options = [part for s in (*settings, *self._plan.options) for part in ("-c", s)]
        command = [str(self._binaries / "postgres"), "-D", str(self._layout.data), *options]
        self._server = self._spawn(command, subprocess.DEVNULL)

    def _watch(self) -> bool:
        """Waits; True when the server was stopped on purpose, False when it ended by itself."""
        assert self._server is not None
        while self._server.poll() is None:
            if not same_file(self._supervisor, self._layout.supervisor):
                # The directory was deleted. A lingering server writes to its absolute path, where
                # a new cluster may stand already: no shutdown checkpoint, only an end.
                orphans.kill(self._layout.data)
                self._server.wait()
                return True
            if self._unwanted():
                self._stop(self._server)
                return True
            told = signal.sigtimedwait(_WATCHED, _TICK_S)
            if told is not None and told.si_signo != signal.SIGCHLD:
                self._stop(self._server)
                return True
        return False

    def _unwanted(self) -> bool:
        """Whether nobody held a lease for the linger time; then we keep it until all is down."""
        if not lock(self._lease, fcntl.LOCK_EX):
            self._idle_since = None
            return False
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if now - self._idle_since >= self._plan.linger_s:
            return True
        fcntl.flock(self._lease, fcntl.LOCK_UN)
        return False

    def _stop(self, server: subprocess.Popen[bytes]) -> None:
        """Fast shutdown (SIGINT), then immediate (SIGQUIT), then no questions."""
        for how, limit_s in ((signal.SIGINT, _FAST_STOP_S), (signal.SIGQUIT, _QUICK_STOP_S)):
            server.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(limit_s)
                return
        orphans.kill(self._layout.data)
        server.wait()

    def _say(self, message: str) -> None:
        os.write(self._log, f"supervisor: {message}\n".encode())


def _die_with(parent: int) -> None:
    """In the child: end with the parent. After the change of user, which would clear this."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:
        os._exit(1)


def _initdb_options(major: int) -> list[str]:
    # Never from the environment: the locale C breaks lower() and search beyond ASCII.
    locale = ["--locale=C.UTF-8"]
    if major >= _BUILTIN_LOCALE_MAJOR:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--no-instructions", "--username", USER, "--auth=trust", "--encoding=UTF8", *locale]


def _settings(major: int) -> tuple[str, ...]:
    newer = ("io_method=sync",) if major >= _IO_METHOD_MAJOR else ()
    return (
        "listen_addresses=",
        "unix_socket_permissions=0700",
        "max_connections=60",
        "shared_buffers=64MB",
        "huge_pages=off",
        "jit=off",
        "wal_level=minimal",
        "max_wal_senders=0",
        "max_wal_size=512MB",
        "timezone=UTC",
        "log_timezone=UTC",
        "log_checkpoints=off",
        "log_min_error_statement=panic",  # statements and values hold what people said
        "log_error_verbosity=terse",
        *newer,
    )


def _open_log(layout: Layout) -> int:
    with contextlib.suppress(FileNotFoundError):
        if layout.log.stat().st_size > _MAX_LOG_BYTES:
            layout.log.rename(layout.log.with_suffix(".log.1"))
    return os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD must have a handler to be seen by sigtimedwait."""


def main() -> None:
    """Detaches, supervises, exits. Standard output is the starter's pipe: empty means success."""
    if os.fork():
        os._exit(0)
    plan = Plan.from_json(sys.argv[1])
    log = _open_log(plan.layout)
    signal.signal(signal.SIGCHLD, _ignore)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    supervisor = Supervisor(plan, log)
    if not supervisor.elected():
        return
    try:
        supervisor.prepare()
    except (_Refused, OSError) as exc:
        with contextlib.suppress(BrokenPipeError):
            os.write(1, f"embedded PostgreSQL: {exc}".encode())
        return
    os.dup2(log, 1)
    supervisor.run()


if __name__ == "__main__":
    main()
