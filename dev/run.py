"""`make run`: every part on this machine, started in order, stopped in reverse.

Real parts where the environment names them, else our own LiveKit server, an embedded PostgreSQL
and stand-ins for Gladia, OpenAI and LiveKit Egress, and it says which is which.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from core.env import Env
from core.errors import AppError, ConfigError
from db.embedded import EmbeddedPostgres, is_locked
from db.pool import DatabaseSettings
from dev import livekit
from dev.console import Console
from dev.livekit import Ports
from dev.processes import Child, ChildFailed, free_port, port_is_free

ROOT: Final = Path(__file__).parent.parent
API_KEY: Final = "devkey"
API_SECRET: Final = "devsecret-devsecret-devsecret-devsecret"  # noqa: S105 - opens a loopback server
_WEB_PORT: Final = 3000
_RTMP_PORT: Final = 1937
_READY_WITHIN_S: Final = 60.0
_STOP_GRACE_S: Final = {"robots": 5.0, "worker": 20.0, "web": 10.0, "livekit": 0.0}
_OTHERS_GRACE_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.25
_NONE: Final[Mapping[str, str]] = {}


class Stage:
    """The programs that were started; each knows the environment that the parts share."""

    def __init__(self, environ: Mapping[str, str], console: Console) -> None:
        self.env = dict(environ)
        self.console = console
        self.parts: list[tuple[str, str]] = []
        """Name and address of what is ready, for the closing list."""
        self._children: list[Child] = []
        self._database: EmbeddedPostgres | None = None

    def module(
        self, name: str, module: str, *arguments: str, variables: Mapping[str, str] = _NONE
    ) -> Child:
        """Starts `python -m module arguments` under `name`."""
        command = (sys.executable, "-u", "-m", module, *arguments)
        return self.program(name, *command, variables=variables)

    def program(self, name: str, *argv: str, variables: Mapping[str, str] = _NONE) -> Child:
        """Starts a program; `variables` are its own, beside those that all share."""
        env = self.env | dict(variables)
        child = Child(name, argv, env=env, cwd=ROOT, sink=self.console.sink(name))
        self._children.append(child)
        return child

    def adopt(self, child: Child) -> None:
        self._children.append(child)

    def hold(self, database: EmbeddedPostgres) -> None:
        """Keeps an embedded server running until `stop`."""
        self._database = database

    def ready(self, name: str, address: str) -> None:
        self.parts.append((name, address))
        self.console.say(f"ready: {name:<9} {address}")

    def announce(self) -> None:
        """The whole list once more, below what the programs have logged meanwhile."""
        rows = "\n".join(f"  {name:<9} {address}" for name, address in self.parts)
        page = f"http://127.0.0.1:{self.env['PORT']}"
        self.console.say(f"\n{rows}\n\nRoomscribe runs: open {page}    Ctrl-C stops all of it\n")

    def ended(self) -> Child | None:
        """A program that ended though nobody asked it to."""
        return next((child for child in self._children if child.returncode is not None), None)

    def stop(self) -> None:
        """Ends everything, last started first; returns when nothing of it runs."""
        while self._children:
            child = self._children[-1]
            child.stop(_STOP_GRACE_S.get(child.name, _OTHERS_GRACE_S))
            self._children.pop()
        if self._database is not None:
            self._database.close()
            _wait_until_stopped(self._database)
            self._database = None

    def kill(self) -> None:
        """Ends everything at once."""
        for child in self._children:
            child.kill()


def start_livekit(stage: Stage) -> bool:
    """The LiveKit of LIVEKIT_URL, else a server of our own; says whether it is ours."""
    if stage.env.get("LIVEKIT_URL"):
        env = Env(stage.env)
        env.required("LIVEKIT_API_KEY", "LIVEKIT_URL is set, and its server wants a key")
        env.required("LIVEKIT_API_SECRET", "LIVEKIT_URL is set, and its server wants a secret")
        env.check()
        stage.ready("LiveKit", f"{stage.env['LIVEKIT_URL']} (from LIVEKIT_URL)")
        return False
    binary = livekit.ensure_binary(stage.env, stage.console.say)
    ports = Ports.preferred()
    if ports.signal != Ports().signal:
        stage.console.say(f"port {Ports().signal} (LiveKit) is taken: using {ports.signal}")
    server = livekit.start(
        binary,
        api_key=stage.env.get("LIVEKIT_API_KEY") or API_KEY,
        api_secret=stage.env.get("LIVEKIT_API_SECRET") or API_SECRET,
        ports=ports,
        overrides={
            "webhook": {"urls": [f"http://127.0.0.1:{stage.env['PORT']}/api/livekit/webhook"]},
            "logging": {"level": "error"},
        },
        sink=stage.console.sink("livekit"),
    )
    stage.adopt(server.child)
    stage.env |= server.env()
    stage.ready("LiveKit", f"{server.url} (a server of our own, {binary})")
    return True


def start_egress(stage: Stage, *, beside_ours: bool) -> dict[str, str]:
    """A stand-in for the Egress service of our own LiveKit server; returns the web's variables."""
    if not beside_ours:
        stage.ready("fallback", "LiveKit Egress, where the server of LIVEKIT_URL has it")
        return {}
    if shutil.which("ffmpeg") is None:
        stage.ready("fallback", "none: ffmpeg is not installed (apt-get install ffmpeg)")
        return {"FALLBACK_MODE": "off"}
    port = free_port()
    child = stage.module("egress", "dev.egress", "--port", str(port))
    address = child.wait_for(str(port), _READY_WITHIN_S).split()[-1]
    stage.ready("fallback", "STAND-IN for LiveKit Egress: carries the sound where no bot is")
    return {
        "LIVEKIT_URL": address.replace("http", "ws", 1),
        "LIVEKIT_PUBLIC_URL": stage.env.get("LIVEKIT_PUBLIC_URL") or stage.env["LIVEKIT_URL"],
    }


def start_database(stage: Stage) -> None:
    """The PostgreSQL of DATABASE_URL, else an embedded one."""
    env = Env(stage.env)
    settings = DatabaseSettings.from_env(env, application="run", embedded_by_default=True)
    env.check()
    stage.env["ROOMSCRIBE_DATA_DIR"] = str(settings.embedded.home)
    if not settings.url.startswith("embedded:"):
        stage.ready("database", "PostgreSQL of DATABASE_URL")
        return
    stage.env["DATABASE_URL"] = settings.url
    server = EmbeddedPostgres(settings.embedded)
    stage.hold(server)
    server.ensure()
    stage.ready(
        "database",
        f"embedded PostgreSQL {server.binaries.version} in {server.layout.base}",
    )


def start_stand_ins(stage: Stage) -> None:
    """What replaces the providers whose keys are not set."""
    if stage.env.get("GLADIA_API_KEY"):
        stage.ready("speech", "Gladia (GLADIA_API_KEY is set)")
    else:
        port = free_port()
        child = stage.module("gladia", "dev.gladia", "--port", str(port))
        child.wait_for(str(port), _READY_WITHIN_S)
        stage.env |= {
            "GLADIA_API_KEY": "stand-in",
            "GLADIA_API_URL": f"http://127.0.0.1:{port}",
        }
        stage.ready("speech", "STAND-IN for Gladia: simple English only. Real: GLADIA_API_KEY")
    if stage.env.get("OPENAI_API_KEY") or stage.env.get("OPENAI_BASE_URL"):
        stage.ready("insights", "the language model of OPENAI_API_KEY or OPENAI_BASE_URL")
    else:
        port = free_port()
        child = stage.module("openai", "dev.openai", "--port", str(port))
        address = child.wait_for(str(port), _READY_WITHIN_S).split()[-1]
        stage.env |= {"OPENAI_API_KEY": "stand-in", "OPENAI_BASE_URL": address}
        stage.ready("insights", "STAND-IN for OpenAI: picks frequent words. Real: OPENAI_API_KEY")


def start_ours(stage: Stage, for_web: Mapping[str, str]) -> None:
    """The worker and the web service, side by side; `for_web` are variables of the latter."""
    worker = stage.program("worker", sys.executable, "-u", "agent.py", "dev")
    web = stage.module("web", "web", variables=for_web)
    address = f"http://127.0.0.1:{stage.env['PORT']}"
    livekit.wait_until_answering(f"{address}/health/live", web, _READY_WITHIN_S)
    stage.ready("web", address)
    worker.wait_for("registered worker", _READY_WITHIN_S)
    stage.ready("worker", "registered: a bot joins each room")


def start_robots(stage: Stage) -> None:
    address = f"http://127.0.0.1:{stage.env['PORT']}"
    robots = stage.module("robots", "dev.robots", "--web", address)
    link = robots.wait_for(r"http://\S+", _READY_WITHIN_S).split()[-1]
    stage.ready("robots", f"talking in {link}")


def choose_ports(stage: Stage) -> None:
    """A free port where the usual one is taken; the one that was asked for, or nothing.

    Raises:
        ConfigError: a port that the environment asks for is taken.
    """
    problems = []
    for variable, usual, part in (("PORT", _WEB_PORT, "web"), ("RTMP_PORT", _RTMP_PORT, "RTMP")):
        wanted = stage.env.get(variable)
        if wanted and wanted.isdigit() and not port_is_free(int(wanted)):
            problems.append(f"{variable}={wanted} ({part}) is taken: stop what listens there")
        if wanted:
            continue
        port = usual if port_is_free(usual) else free_port()
        if port != usual:
            stage.console.say(f"port {usual} ({part}) is taken: using {port}")
        stage.env[variable] = str(port)
    if problems:
        raise ConfigError(problems)
    stage.env.setdefault("METRICS_PORT", str(free_port()))
    source = f"http://127.0.0.1:{stage.env['METRICS_PORT']}/metrics"
    stage.env.setdefault("METRICS_SOURCES", source)
    stage.env.setdefault("WS_SERVER_URL", f"http://127.0.0.1:{stage.env['PORT']}")


def run(stage: Stage, *, demo: bool) -> None:
    """Starts everything, then returns when a part has ended by itself.

    Raises:
        ChildFailed: always; says which part ended.
    """
    choose_ports(stage)
    is_ours = start_livekit(stage)
    for_web = start_egress(stage, beside_ours=is_ours)
    start_database(stage)
    start_stand_ins(stage)
    start_ours(stage, for_web)
    if demo:
        start_robots(stage)
    stage.announce()
    while (child := stage.ended()) is None:
        time.sleep(_LOOK_EVERY_S)
    raise ChildFailed(f"{child.name} ended with {child.returncode}\n{child.tail()}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--demo", action="store_true", help="robots join a session and talk")
    options = parser.parse_args(arguments)
    stage = Stage(os.environ, Console())  # noqa: TID251 - composition root
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    code = 0
    try:
        run(stage, demo=options.demo)
    except KeyboardInterrupt:
        stage.console.say("\nstopping; once more to stop at once")
    except (AppError, ChildFailed) as exc:
        stage.console.say(f"\n{exc}\n")
        code = 2 if isinstance(exc, ConfigError) else 1
    try:
        stage.stop()
    except KeyboardInterrupt:
        stage.kill()
    stage.console.say("stopped")
    return code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_until_stopped(database: EmbeddedPostgres) -> None:
    """Its supervisor lingers a little after the last user; another user keeps it running."""
    deadline = time.monotonic() + 10
    while is_locked(database.layout.supervisor) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    raise SystemExit(main())
