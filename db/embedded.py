"""Embedded PostgreSQL, seen from a process that uses it: hold a lease, wait until it answers.

Theory of operation. Nobody owns the server. Every process that uses it holds a shared `flock` on
`lease.lock` for as long as it lives. One detached supervisor (`db.supervisor`), elected by an
exclusive `flock` on `supervisor.lock`, runs the server as its child, restarts it when it dies and
stops it once it can lock the lease exclusively, which proves that nobody uses it any more. Locks
are kernel objects: kill -9 of anything frees them, and no pid is ever trusted.

The server listens on a Unix socket in a directory of mode 0700 only, so there is no password.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from core.errors import ConfigError, StoreUnavailable
from db.binaries import Account, Binaries, find_binaries, server_account

USER = "roomscribe"
DATABASE = "roomscribe"
PORT = 5432
"""Only names the socket file; no TCP port is opened."""
_MAX_SOCKET_PATH_BYTES = 103
_READY = b"Z\0\0\0\5I"
_TERMINATE = b"X\0\0\0\4"
_POLL_S = 0.02
_RESPAWN_S = 1.0
_LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedConfig:
    """Where the embedded server lives and which programs it runs."""

    home: Path
    """Absolute; holds one subdirectory for each major version."""
    pg_bin: Path | None = None
    """Directory with `postgres` and `initdb`; None searches."""
    account: str = ""
    """Whom root runs the server as; empty chooses."""
    linger_s: float = 5.0
    """Seconds that the server outlives its last user."""
    start_timeout_s: float = 60.0
    """Seconds until `ensure` gives up."""
    options: tuple[str, ...] = ()
    """More server settings as `name=value`; they win over ours."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster."""

    base: Path
    """`<home>/pg<major>`."""
    sockets: Path
    """Directory of the server's socket."""

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def lease(self) -> Path:
        return self.base / "lease.lock"

    @property
    def supervisor(self) -> Path:
        return self.base / "supervisor.lock"

    @property
    def log(self) -> Path:
        return self.base / "postgres.log"

    @property
    def socket(self) -> Path:
        return self.sockets / f".s.PGSQL.{PORT}"


class EmbeddedPostgres:
    """One process's hold on the embedded server. Thread-safe; blocks, so call it in a thread.

    The server runs at least until `close`, and is started again by `ensure` when it
    is gone, supervisor included.
    """

    def __init__(self, config: EmbeddedConfig) -> None:
        """Finds the programs and the account.

        Raises:
            ConfigError: embedded mode cannot work here; the text says what to do.
        """
        if not sys.platform.startswith("linux"):
            raise ConfigError(["embedded PostgreSQL needs Linux: set DATABASE_URL"])
        self.binaries: Binaries = find_binaries(config.home, config.pg_bin)
        base = config.home / f"pg{self.binaries.major}"
        self._account = server_account(base / "data", config.account)
        uid = self._account.uid if self._account else os.geteuid()
        self.layout = Layout(base, _socket_directory(base, uid))
        self._config = config
        self._lease: int | None = None
        self._launch: _Launch | None = None
        self._mutex = threading.Lock()

    def url(self, database: str = DATABASE) -> str:
        """A libpq URL of `database` in this cluster."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.layout.sockets))}&port={PORT}"

    def ensure(self, limit_s: float | None = None) -> None:
        """Returns once the server answers; starts it if need be.

        Args:
            limit_s: seconds to wait at most; None for the configured limit.

        Raises:
            ConfigError: it cannot be started here; the text says why.
            StoreUnavailable: it did not answer in time.
        """
        deadline = time.monotonic() + (limit_s or self._config.start_timeout_s)
        with self._mutex:
            while not (self._hold_lease() and _answers(self.layout.socket)):
                if self._lease is not None:
                    self._launch_if_needed()
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"embedded PostgreSQL did not start\n{self.log_tail()}")
                time.sleep(_POLL_S)
            if self._launch is not None:
                self._launch.close()
                self._launch = None

    def close(self) -> None:
        """Gives up the lease; the server stops soon after if nobody else holds one."""
        with self._mutex:
            if self._lease is not None:
                os.close(self._lease)
                self._lease = None
            if self._launch is not None:
                self._launch.close()
                self._launch = None

    def log_tail(self) -> str:
        """The end of the server's log; it holds no statements and no values."""
        with contextlib.suppress(OSError):
            return self.layout.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return ""

    def _hold_lease(self) -> bool:
        """Whether we hold the lease of the directory as it is now, not of a deleted one."""
        if self._lease is not None:
            if same_file(self._lease, self.layout.lease):
                return True
            os.close(self._lease)
            self._lease = None
        self._make_directories()
        fd = open_lock(self.layout.lease)
        if lock(fd, fcntl.LOCK_SH) and same_file(fd, self.layout.lease):
            self._lease = fd
            return True
        os.close(fd)  # the supervisor is stopping: it releases the lease when all is down
        return False

    def _make_directories(self) -> None:
        try:
            self._config.home.mkdir(parents=True, exist_ok=True)
            # Root's server runs as another account, which must be able to pass through.
            self.layout.base.mkdir(mode=0o711 if self._account else 0o700, exist_ok=True)
        except OSError as exc:
            raise ConfigError(
                [f"cannot create {self.layout.base} ({exc.strerror}): set ROOMSCRIBE_DATA_DIR"]
            ) from exc
        make_private(self.layout.sockets, self._account)

    def _launch_if_needed(self) -> None:
        launch = self._launch
        if launch is not None:
            launch.check()
            if time.monotonic() - launch.at < _RESPAWN_S:
                return
            launch.close()
            self._launch = None
        if not is_locked(self.layout.supervisor):
            self._launch = _Launch(self._plan())

    def _plan(self) -> str:
        account = self._account
        return json.dumps(
            {
                "base": str(self.layout.base),
                "sockets": str(self.layout.sockets),
                "binaries": str(self.binaries.directory),
                "major": self.binaries.major,
                "account": [account.name, account.uid, account.gid] if account else None,
                "linger_s": self._config.linger_s,
                "options": self._config.options,
            }
        )


class _Launch:
    """A supervisor that we started; its pipe says why it gave up, if it did."""

    def __init__(self, plan: str) -> None:
        root = Path(__file__).resolve().parent.parent
        self.at = time.monotonic()
        # -S: it needs the standard library only. A clean environment: PGDATA, LANG and the like
        # must not reach the server. The child detaches itself and the process here ends at once.
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-S", "-P", "-m", "db.supervisor", plan],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "PYTHONPATH": str(root)},
            start_new_session=True,
        )
        assert process.stdout is not None
        self._pipe = process.stdout
        self._said = b""
        process.wait()

    def check(self) -> None:
        """Raises ConfigError when the supervisor said that it cannot start the server."""
        while not self._pipe.closed and select.select([self._pipe], [], [], 0)[0]:
            data = os.read(self._pipe.fileno(), 65536)
            if not data:
                self._pipe.close()
            self._said += data
        if self._pipe.closed and self._said:
            raise ConfigError([self._said.decode(errors="replace").strip()])

    def close(self) -> None:
        self._pipe.close()


def open_lock(path: Path) -> int:
    """A descriptor to flock; children do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock(fd: int, how: int) -> bool:
    """Tries LOCK_SH or LOCK_EX without waiting."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody holds the exclusive lock of `path`."""
    fd = open_lock(path)
    try:
        return not lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def same_file(fd: int, path: Path) -> bool:
    """Whether `path` still names the open file: false after rm -rf."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def make_private(directory: Path, account: Account | None) -> None:
    """Makes a directory that only the server's account can enter, or checks that it is one.

    Raises:
        ConfigError: it belongs to somebody else, as may happen below /tmp.
    """
    uid = account.uid if account else os.geteuid()
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
        if account:
            os.chown(directory, account.uid, account.gid)
    found = directory.lstat()
    owners = {uid, 0} if account else {uid}
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
        raise ConfigError([f"{directory} is not a private directory of the server's account"])


def _socket_directory(base: Path, uid: int) -> Path:
    inside = base / "run"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= _MAX_SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(os.fsencode(base)).hexdigest()[:12]
    return Path("/tmp") / f"roomscribe-{uid}-{digest}"  # noqa: S108 - checked by make_private


def _answers(path: Path) -> bool:
    """Whether a server behind the socket accepts sessions of ours."""
    body = struct.pack("!i", 196608) + f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(1.0)
            peer.connect(str(path))
            peer.sendall(struct.pack("!i", len(body) + 4) + body)
            answer = b""
            while not answer.endswith(_READY):
                data = peer.recv(4096)
                if not data:
                    return False
                answer += data
            peer.sendall(_TERMINATE)
            return True
    except OSError:
        return False
