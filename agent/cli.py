"""The command line: `dev`, `start` and `connect ROOM`, over the framework's public API.

Exit codes: 0 after an orderly end, 1 when the worker could not do its work, 2 when the
configuration is wrong; then every problem is listed.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.logs import set_up_logging
from agent.reload import run_reloading
from agent.settings import Mode, Settings
from agent.worker import FAILED, MISCONFIGURED, open_worker
from core.errors import ConfigError, StoreError

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    environ = os.environ  # noqa: TID251 - composition root
    if options.command == "dev" and options.reload:
        return run_reloading([sys.argv[0], "dev", "--no-reload"], Path(__file__).parent.parent)
    room = options.room if options.command == "connect" else None
    return run_worker(environ, options.command, room)


def run_worker(environ: Mapping[str, str], mode: Mode, room: str | None) -> int:
    """Reads the settings and works until a signal, a failure, or the end of `room`."""
    try:
        settings = Settings.from_env(environ, mode)
    except ConfigError as exc:
        _list(exc)
        return MISCONFIGURED
    set_up_logging(settings.log_level, "json" if mode == "start" else "text")
    try:
        return asyncio.run(_work(settings, mode, room))
    except ConfigError as exc:
        _list(exc)
        return MISCONFIGURED
    except (OSError, StoreError):
        logger.exception("worker could not start")
        return FAILED


async def _work(settings: Settings, mode: Mode, room: str | None) -> int:
    async with open_worker(settings) as worker:
        loop = asyncio.get_running_loop()
        signals: list[int] = []

        def on_signal(number: int) -> None:
            if signals:
                logger.warning("second signal, exiting at once")
                os._exit(FAILED)
            signals.append(number)
            worker.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        return await worker.run(dev=mode != "start", room=room)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent.py",
        description="The bot that transcribes LiveKit rooms. Settings come from the environment.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    dev = commands.add_parser(
        "dev", help="work with readable logs; start again when a file changes"
    )
    dev.add_argument("--reload", action=argparse.BooleanOptionalAction, default=True)
    commands.add_parser("start", help="work with JSON logs; hand over on SIGTERM")
    connect = commands.add_parser("connect", help="serve one room, without dispatch")
    connect.add_argument("room", metavar="ROOM")
    return parser


def _list(error: ConfigError) -> None:
    print("The configuration cannot be used:", file=sys.stderr)  # noqa: T201 - for people
    for problem in error.problems:
        print(f"  - {problem}", file=sys.stderr)  # noqa: T201 - for people
