"""`python -m dev.gladia`: the stand-in as a process of its own."""

import argparse
import asyncio
import contextlib
import signal

from dev.gladia.ear import Ear, WatermarkEar
from dev.gladia.policy import Policy
from dev.gladia.standin import GladiaStandIn


def main() -> None:
    """Serves until SIGINT or SIGTERM; the first line on stdout is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m dev.gladia", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ear", choices=("speech", "watermark"), default="speech")
    parser.add_argument("--api-key", default="stand-in")
    parser.add_argument("--max-sessions", type=int, default=Policy().max_sessions)
    parser.add_argument("--ear-processes", type=int, default=1, help="for real recognition")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    standin = GladiaStandIn(
        ear=_ear(options.ear, options.ear_processes),
        policy=Policy(max_sessions=options.max_sessions),
        api_key=options.api_key,
        host=options.host,
        port=options.port,
    )
    async with standin:
        print(standin.base_url, flush=True)
        print("This is a stand-in for Gladia: its transcripts are approximate.", flush=True)
        await stopped.wait()


def _ear(name: str, processes: int) -> Ear:
    if name == "watermark":
        return WatermarkEar()
    from dev.gladia.speech_ear import SpeechEar

    return SpeechEar(processes=processes)


if __name__ == "__main__":
    main()
