"""Whoever transcribes a room is killed: the other way takes over, and each word counts once."""

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from dev import watermark
from dev.egress import EgressServer
from dev.gladia import GladiaStandIn
from dev.processes import free_port
from tests.live.programs import StartProgram
from tests.live.voices import (
    StartWeb,
    Voice,
    covered,
    stored,
    until_active,
    until_running,
    voices,
    words,
)

pytestmark = [pytest.mark.live, pytest.mark.timeout(200)]
SECRET = "a secret that outlives one process of the service"


async def count_until(voice: Voice, over: asyncio.Event) -> None:
    """Counts on in blocks of eight until it is over."""
    while not over.is_set():
        await voice.count(8)


def check(rows: Sequence[dict[str, Any]], voice: Voice) -> list[int]:
    """Each number is in one final, or in a gap; returns those in gaps."""
    heard = Counter(number for _, number in words(rows))
    assert [number for number, count in heard.items() if count > 1] == []
    missing = [number for number in range(voice.counted) if not heard[number]]
    assert [number for number in missing if not covered(rows, voice.said_at[number])] == []
    assert sorted(heard) == [number for _, number in words(rows)], "out of order"
    return missing


def by_source(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["source"], []).extend(n for _, n in watermark.parse(row["text"]))
    return found


async def test_a_killed_worker_is_replaced_by_the_mix_until_it_is_back(
    start_web: StartWeb, start_worker: StartProgram, egress: EgressServer, gladia: GladiaStandIn
) -> None:
    worker = await start_worker()
    web = await start_web()
    slug = await web.create_session()
    async with voices(web, slug, "Ann") as (ann,), asyncio.TaskGroup() as tasks:
        async with asyncio.timeout(30):
            await ann.robot.heard.wait()
        over = asyncio.Event()
        counting = tasks.create_task(count_until(ann, over), name="counting")
        await stored(web, slug, lambda rows: len(words(rows)) >= 8)
        worker.signal(signal.SIGKILL)
        await until_active(egress, 1)
        await stored(web, slug, lambda rows: len(by_source(rows).get("rtmp", [])) >= 16)
        await start_worker()
        await until_active(egress, 0, 60)
        before = ann.counted
        await stored(web, slug, lambda rows: max(by_source(rows).get("agent", [0])) >= before, 60)
        over.set()
        await counting
        rows = await stored(web, slug, lambda rows: (0, ann.counted - 1) in words(rows))
    missing = check(rows, ann)
    counts = {source: len(numbers) for source, numbers in by_source(rows).items()}
    print(f"said {ann.counted}, stored {counts}, in gaps {missing}")  # noqa: T201 - figures
    assert max(gladia.heard().values()) == 1
    assert missing
    named = {(row["source"], row["speaker"]) for row in rows if row["kind"] == "speech"}
    assert named - {("rtmp", "Speaker")} == {("agent", "Ann"), ("rtmp", "Ann")}, (
        "only the mix may not know who speaks, and only before its first report"
    )


async def test_a_killed_service_goes_on_with_the_egress_that_comes_back(
    start_web: StartWeb, egress: EgressServer, gladia: GladiaStandIn
) -> None:
    """The port is gone and there again; the publisher finds it, and nobody starts another."""
    ports = {"PORT": str(free_port()), "RTMP_PORT": str(free_port()), "AUTH_SECRET": SECRET}
    web = await start_web(**ports)
    slug = await web.create_session()
    async with voices(web, slug, "Ann") as (ann,), asyncio.TaskGroup() as tasks:
        await until_active(egress, 1)
        await until_running(web, slug)
        first = egress.active()[0].egress_id
        over = asyncio.Event()
        counting = tasks.create_task(count_until(ann, over), name="counting")
        await stored(web, slug, lambda rows: len(words(rows)) >= 8)
        web.child.signal(signal.SIGKILL)
        killed_after = ann.counted
        web = await start_web(**ports)
        ann.reporter.meet(web.http)
        await stored(
            web, slug, lambda rows: len([n for _, n in words(rows) if n > killed_after]) > 8
        )
        over.set()
        await counting
        rows = await stored(web, slug, lambda rows: (0, ann.counted - 1) in words(rows))
        assert [one.egress_id for one in egress.active()] == [first]
    missing = check(rows, ann)
    print(f"said {ann.counted}, in gaps {missing}")  # noqa: T201 - figures
    assert max(gladia.heard().values()) == 1
    assert {row["source"] for row in rows if row["text"]} == {"rtmp"}
