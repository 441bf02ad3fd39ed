"""The RTMP port as a process of its own, for the attacks: `python -m tests.agent.ingest_port`.

Prints its port, then one line of JSON for each line on stdin, until stdin ends.
"""

import asyncio
import json
import sys
import time

import psutil

from agent.ingest.acceptor import Acceptor
from core.rtmp import Limits
from tests.agent.ingest_kit import OpenGate

KEYS = {"legit": "right", "fuzz": "right"}


class Pulse:
    """The most CPU time that the loop spent between two chances to do something else.

    CPU, not time: what other programs of the machine take does not count.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def run(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            self.worst_s = max(self.worst_s, time.thread_time() - before)


async def serve() -> None:
    async with asyncio.TaskGroup() as group:
        gate = OpenGate(group, KEYS)
        pulse = Pulse()
        beating = group.create_task(pulse.run(), name="pulse")
        limits = Limits(publish_s=2.0, idle_s=5.0, takeover_s=0.5, reject_hold_s=0.1)
        acceptor = Acceptor(gate, limits=limits)
        async with acceptor.serving("127.0.0.1", 0) as port:
            print(port, flush=True)  # noqa: T201 - the answer
            while await asyncio.to_thread(sys.stdin.readline):
                print(json.dumps(report(acceptor, gate, pulse)), flush=True)  # noqa: T201 - the answer
        beating.cancel()
        for sinks in gate.sinks.values():
            for sink in sinks:
                sink.decoder.finish()


def report(acceptor: Acceptor, gate: OpenGate, pulse: Pulse) -> dict[str, object]:
    tapes = [sink.tape for sink in gate.sinks.get("legit", [])]
    return {
        "rss_mb": psutil.Process().memory_info().rss / 1e6,
        "sockets": len(psutil.Process().net_connections()),
        "children": len(psutil.Process().children()),
        "closed": dict(acceptor.counters.closed),
        "busy_s": pulse.worst_s,
        "publishes": len(tapes),
        "seconds": sum(tape.seconds for tape in tapes),
        "jumps": sum(len(tape.jumps) for tape in tapes),
        "gap_s": max((tape.longest_gap_s(tape.arrivals[0] + 1) for tape in tapes), default=0),
    }


if __name__ == "__main__":
    asyncio.run(serve())
