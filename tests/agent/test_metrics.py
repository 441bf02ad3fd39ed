"""Counters from jobs, as Prometheus reads them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp

from agent.job import count_segment
from agent.metrics import COUNTERS, Meter, Metrics, serving
from core.ids import Identity, Slug, UtteranceId
from core.transcript import Segment


def test_a_meter_hands_over_what_it_summed_up_once() -> None:
    meter = Meter()
    meter.add("segments", label="final")
    meter.add("segments", 2, label="final")
    meter.add("audio_seconds_billed", 3200)
    assert meter.take() == {"segments|final": 3.0, "audio_seconds_billed": 3200.0}
    assert meter.take() == {}


def test_a_growing_total_is_added_once() -> None:
    meter = Meter()
    for total in (3, 3, 5):
        meter.follow("published", total)
    assert meter.take() == {"published": 5.0}
    meter.follow("published", 5)
    assert meter.take() == {}


def test_segments_are_counted_with_latency_and_loss() -> None:
    meter, at = Meter(), datetime(2026, 1, 1, tzinfo=UTC)
    line = Segment(
        slug=Slug("s"),
        utterance_id=UtteranceId("u"),
        rev=1,
        is_final=True,
        text="yes",
        identity=Identity("maria"),
        name="Maria",
        started_at=at,
        ended_at=at + timedelta(seconds=2),
    )
    now = at + timedelta(seconds=2.5)
    count_segment(meter, line, now)
    count_segment(meter, replace(line, is_final=False), now)
    count_segment(meter, replace(line, kind="gap", text="", reason="gladia_down"), now)
    assert meter.take() == {
        "segments|final": 1.0,
        "segments|interim": 1.0,
        "segments|gap": 1.0,
        "stt_latency_seconds": 0.5,
        "stt_latency_count": 1.0,
        "audio_seconds_lost|gladia_down": 2.0,
    }


async def test_all_counters_are_served_and_sums_arrive() -> None:
    metrics, ready = Metrics(), {"livekit": True, "database": False}
    metrics.gauge("rooms", "rooms served", lambda: 2.0)
    metrics.merge({"segments|final": 3.0, "audio_seconds_billed": 10.0, "from_a_newer_job": 1.0})
    async with (
        serving(metrics, "127.0.0.1", 0, lambda: ready) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/metrics") as answer:
            text = await answer.text()
        assert 'roomscribe_segments_total{kind="final"} 3.0' in text
        assert "roomscribe_audio_seconds_billed_total 10.0" in text
        assert "roomscribe_rooms 2.0" in text
        for name in COUNTERS:
            assert f"# TYPE roomscribe_{name}_total counter" in text
        async with http.get("/ready") as answer:
            assert (answer.status, await answer.json()) == (503, ready)
        ready["database"] = True
        async with http.get("/ready") as answer:
            assert answer.status == 200
