"""A LiveKit server on this machine: found, or built from its Go module, then run.

Configuration is the repository's livekit.yaml with this machine's ports in place of its own.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # no stubs among the locked packages
from livekit import api

from core.errors import ConfigError
from dev.processes import Child, ChildFailed, free_port, port_is_free

VERSION: Final = "v1.13.5"
MODULE: Final = "github.com/livekit/livekit-server/cmd/server"
CONFIG: Final = Path(__file__).parent.parent / "livekit.yaml"
THREE_WAYS: Final = f"""\
no LiveKit server: do one of these three
  1. export LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of a server or a Cloud project
  2. put a `livekit-server` ({VERSION}) on PATH
  3. install Go 1.24 or newer; `make setup` then builds it from {MODULE}@{VERSION}"""
_READY_WITHIN_S: Final = 20.0
_PROGRESS_EVERY_S: Final = 15.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where one server listens: HTTP and signalling, ICE over TCP, ICE over UDP."""

    signal: int = 7880
    tcp: int = 7881
    udp: int = 7882

    @classmethod
    def free(cls) -> "Ports":
        return cls(signal=free_port(), tcp=free_port(), udp=free_port(socket.SOCK_DGRAM))

    @classmethod
    def preferred(cls) -> "Ports":
        """LiveKit's usual ports, each replaced by a free one where it is taken."""
        usual = cls()
        udp = usual.udp if port_is_free(usual.udp, socket.SOCK_DGRAM) else None
        return cls(
            signal=usual.signal if port_is_free(usual.signal) else free_port(),
            tcp=usual.tcp if port_is_free(usual.tcp) else free_port(),
            udp=udp or free_port(socket.SOCK_DGRAM),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitServer:
    """A server that answers; `stop` ends it."""

    url: str
    """ws:// address for clients; the API is under the same host and port."""
    api_key: str
    api_secret: str = field(repr=False)
    child: Child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def http_url(self) -> str:
        return self.url.replace("ws://", "http://", 1)

    def env(self) -> dict[str, str]:
        """The framework's three variables."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.api_key,
            "LIVEKIT_API_SECRET": self.api_secret,
        }

    def token(self, room: str, identity: str, name: str = "") -> str:
        """Lets `identity` join `room` with a microphone, for an hour."""
        access = api.AccessToken(self.api_key, self.api_secret).with_identity(identity)
        grants = api.VideoGrants(room_join=True, room=room)
        return access.with_name(name or identity).with_grants(grants).to_jwt()

    def stop(self) -> None:
        """At once: on SIGTERM it would wait for the last participant to leave."""
        self.child.kill()


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Where built servers are kept between runs."""
    root = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "/tmp")) / ".cache")  # noqa: S108 - last resort
    return Path(root) / "roomscribe"


def ensure_binary(environ: Mapping[str, str], report: Report) -> Path:
    """The server program: from PATH, from the cache, or built now with `go install`.

    Raises:
        ConfigError: none was found and none can be built; says the three ways to get one.
    """
    on_path = shutil.which("livekit-server", path=environ.get("PATH"))
    if on_path:
        return Path(on_path)
    built = cache_dir(environ) / f"livekit-server-{VERSION}"
    if built.is_file():
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    with _locked(built.parent / "livekit-server.lock"):
        if not built.is_file():  # another process may have built it meanwhile
            _build(built, environ, report)
    return built


def server_config(
    ports: Ports, api_key: str, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """livekit.yaml on `ports`, its webhooks signed with `api_key`, then `overrides` by section."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["port"] = ports.signal
    config["rtc"] |= {"tcp_port": ports.tcp, "udp_port": str(ports.udp)}
    config["webhook"]["api_key"] = api_key
    for section, values in (overrides or {}).items():
        config[section] = (config.get(section) or {}) | values
    return config


def start(
    binary: Path,
    *,
    api_key: str,
    api_secret: str,
    ports: Ports,
    overrides: Mapping[str, Any] | None = None,
    sink: Report = lambda _line: None,
) -> LiveKitServer:
    """A server that answers on `ports`; its keys are in its environment, never on disk.

    Raises:
        ChildFailed: it did not come up; the message has its last lines.
    """
    child = Child(
        "livekit",
        [binary, "--bind", "127.0.0.1"],
        env={
            "PATH": os.defpath,
            "LIVEKIT_CONFIG": json.dumps(server_config(ports, api_key, overrides)),
            "LIVEKIT_KEYS": f"{api_key}: {api_secret}",
        },
        sink=sink,
    )
    url = f"127.0.0.1:{ports.signal}"
    try:
        wait_until_answering(f"http://{url}/", child, _READY_WITHIN_S)
    except ChildFailed:
        child.kill()
        raise
    return LiveKitServer(url=f"ws://{url}", api_key=api_key, api_secret=api_secret, child=child)


def wait_until_answering(url: str, child: Child, timeout_s: float) -> None:
    """Returns once `url` answers with a status below 500.

    Raises:
        ChildFailed: `child` ended first, or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while not _answers(url):
        if child.returncode is not None:
            raise ChildFailed(f"{child.name} ended with {child.returncode}\n{child.tail()}")
        if time.monotonic() > deadline:
            raise ChildFailed(f"{child.name} did not answer at {url}\n{child.tail()}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own loopback
            return bool(answer.status < 500)  # noqa: PLR2004 - HTTP
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code < 500  # noqa: PLR2004 - HTTP
    except OSError:
        return False


def _build(target: Path, environ: Mapping[str, str], report: Report) -> None:
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise ConfigError([THREE_WAYS])
    report(f"building livekit-server {VERSION} from its Go module (once, 1 to 5 minutes)")
    bin_dir = target.parent / "bin"
    child = Child(
        "go install",
        [go, "install", "-v", f"{MODULE}@{VERSION}"],
        env={**environ, "GOBIN": str(bin_dir)},
    )
    started = time.monotonic()
    try:
        while child.wait(_PROGRESS_EVERY_S) is None:
            report(f"  still building, {time.monotonic() - started:.0f} s: {child.last_line()}")
        if child.returncode != 0:
            raise ConfigError([f"livekit-server was not built\n{child.tail()}\n{THREE_WAYS}"])
    finally:
        child.kill()
    (bin_dir / "server").replace(target)
    report(f"built {target} in {time.monotonic() - started:.0f} s")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Makes sure that a server can be started here; part of `make setup`."""
    environ = dict(os.environ)  # noqa: TID251 - composition root
    if environ.get("LIVEKIT_URL"):
        return
    try:
        ensure_binary(environ, print)
    except (ConfigError, subprocess.SubprocessError) as exc:
        raise SystemExit(str(exc)) from exc


if __name__ == "__main__":
    main()
