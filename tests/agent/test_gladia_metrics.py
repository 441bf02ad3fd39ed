"""A fault of Gladia in a job's process is on the page of the worker's process, by kind."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from agent.bus_relay import RelayReceiver, listening
from agent.metrics import Metrics, serving
from dev.gladia import GladiaStandIn
from dev.gladia.faults import Acks, Drop, Fault, RefusePost, When

JOB = """
import asyncio, sys
from pathlib import Path
import aiohttp
from agent.bus_relay import open_relay_sender
from agent.gladia.live import GladiaAccount, LiveTranscription
from agent.gladia.slots import SessionSlots
from agent.metrics import Meter
from core.gladia.events import PeerFault
from core.gladia.options import GladiaOptions
from dev import watermark
async def main(url, directory, relay):
    meter = Meter()
    def on_event(event):
        if isinstance(event, PeerFault):
            meter.add("gladia_faults", label=event.kind)
    async with open_relay_sender(Path(relay)) as sender, aiohttp.ClientSession() as http:
        live = LiveTranscription(
            options=GladiaOptions(),
            account=GladiaAccount(api_key="stand-in", base_url=url, http=http),
            slots=SessionSlots(Path(directory), 30),
            utterance_prefix="u", metadata={}, on_event=on_event,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(live.run())
            live.push_audio(0, watermark.encode(range(1, 9), 0).pcm.tobytes())
            live.push_silence(8000)
            await live.drain(15)
        sender.metrics(meter.take())
asyncio.run(main(*sys.argv[1:]))
"""
FAULTS: dict[str, tuple[Fault, When | None]] = {
    "gladia_busy": (RefusePost(status=429, retry_after_s=0.1), None),
    "gladia_unavailable": (RefusePost(status=503), None),
    "connection_lost": (Drop(how="reset"), When(at_byte=32_000)),
    "chunk_refused": (Acks(how="refuse"), When(at_byte=32_000)),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_fault_in_a_job_is_counted_in_the_worker(
    gladia: GladiaStandIn, tmp_path: Path, kind: str
) -> None:
    fault, when = FAULTS[kind]
    gladia.faults.add(fault, when=when)
    metrics, relay, arrived = Metrics(), tmp_path / "relay", asyncio.Event()

    def merge(sums: Mapping[str, float]) -> None:
        metrics.merge(sums)
        arrived.set()

    receiver = RelayReceiver(
        on_message=lambda _slug, _payload: None,
        on_left=lambda _job: None,
        on_heard=lambda _job, _until: None,
        on_metrics=merge,
    )
    async with (
        listening(receiver, relay),
        serving(metrics, "127.0.0.1", 0, dict) as port,
        aiohttp.ClientSession() as http,
    ):
        command = [sys.executable, "-c", JOB, gladia.base_url, str(tmp_path / "slots"), str(relay)]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=40)
        async with asyncio.timeout(5):
            await arrived.wait()
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            page = await answer.text()
    assert not gladia.faults.pending()
    assert f'roomscribe_gladia_faults_total{{kind="{kind}"}} 1.0' in page
