"""Counters from jobs, as Prometheus reads them."""

import aiohttp

from agent.metrics import COUNTERS, Meter, Metrics, serving


def test_a_meter_hands_over_what_it_summed_up_once() -> None:
    meter = Meter()
    meter.add("segments", label="final")
    meter.add("segments", 2, label="final")
    meter.add("audio_bytes_sent", 3200)
    assert meter.take() == {"segments|final": 3.0, "audio_bytes_sent": 3200.0}
    assert meter.take() == {}


async def test_all_counters_are_served_and_sums_arrive() -> None:
    metrics, ready = Metrics(), {"livekit": True, "database": False}
    metrics.gauge("rooms", "rooms served", lambda: 2.0)
    metrics.merge({"segments|final": 3.0, "audio_bytes_sent": 10.0, "from_a_newer_job": 1.0})
    async with (
        serving(metrics, "127.0.0.1", 0, lambda: ready) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/metrics") as answer:
            text = await answer.text()
        assert 'roomscribe_segments_total{kind="final"} 3.0' in text
        assert "roomscribe_audio_bytes_sent_total 10.0" in text
        assert "roomscribe_rooms 2.0" in text
        for name in COUNTERS:
            assert f"# TYPE roomscribe_{name}_total counter" in text
        async with http.get("/ready") as answer:
            assert (answer.status, await answer.json()) == (503, ready)
        ready["database"] = True
        async with http.get("/ready") as answer:
            assert answer.status == 200
