"""Counters of the worker and of its job processes, served to Prometheus by the main process.

A job counts in a `Meter` and hands the sums over the relay; nothing here carries a room's or a
person's name.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
)

logger = logging.getLogger(__name__)

COUNTERS: Final[dict[str, tuple[str, str | None]]] = {
    "audio_seconds_billed": ("seconds of audio that Gladia charges", None),
    "audio_seconds_lost": ("seconds of speech that are known to be lost", "reason"),
    "gladia_faults": ("faults of Gladia and of the way to it, all survived", "kind"),
    "deaf_alarms": ("Gladia sessions renewed because voice brought no words", None),
    "segments": ("transcript segments made", "kind"),
    "stt_latency_seconds": ("sum of the seconds from the end of an utterance to its final", None),
    "stt_latency_count": ("finals that stt_latency_seconds sums over", None),
    "finals_not_stored": ("finals that were shown but could not be written down", None),
    "published": ("messages that rooms took", None),
    "publish_failures": ("messages that rooms did not take, each try", None),
    "finals_not_published": ("finals that a room did not take at all; they are stored", None),
    "relay_dropped": ("messages from jobs that did not reach the main process", None),
    "insight_calls": ("questions to the language model for insights", None),
    "insight_failures": ("those without a usable answer", None),
    "insight_tokens": ("tokens that insights cost, both directions", None),
    "insight_usd": ("dollars that insights cost, by the prices of the settings", None),
    "recaps_written": ("recaps stored", None),
    "recap_calls": ("questions to the language model for recaps", None),
    "recap_failures": ("recaps that were given up for now", None),
    "recap_tokens": ("tokens that recaps cost, both directions", None),
    "recap_statements_dropped": ("statements of recaps whose utterances do not exist", None),
    "live_detours": ("live messages posted to the web service, round the bus", None),
    "bot_state_changes": ("changes of the bots' connection to their rooms", "state"),
    "parts_restarted": ("parts that failed and were started again", "part"),
    "jobs_ended": ("jobs that are over, for whatever reason", None),
    "jobs_refused": ("rooms that this worker did not take", "reason"),
    "steward_actions": ("what the steward did", "action"),
}
"""Meaning and label of each counter; exported as `roomscribe_<name>_total`."""
_SEPARATOR: Final = "|"


class Meter:
    """Sums up what one job counts until it is handed over."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._totals: dict[tuple[str, str], float] = {}

    def add(self, name: str, value: float = 1.0, *, label: str = "") -> None:
        """Adds to a counter of COUNTERS; `label` is the value of its label, if it has one."""
        assert name in COUNTERS, name
        key = f"{name}{_SEPARATOR}{label}" if label else name
        self._sums[key] = self._sums.get(key, 0.0) + value

    def follow(self, name: str, total: float, *, label: str = "") -> None:
        """Adds what `total`, a sum that only grows, has grown by since the last call."""
        key = (name, label)
        grown = total - self._totals.get(key, 0.0)
        self._totals[key] = total
        if grown:
            self.add(name, grown, label=label)

    def take(self) -> dict[str, float]:
        """The sums since the last call."""
        sums, self._sums = self._sums, {}
        return sums


class Metrics:
    """The main process's registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters = {
            name: Counter(
                f"roomscribe_{name}", doc, [label] if label else [], registry=self.registry
            )
            for name, (doc, label) in COUNTERS.items()
        }

    def add(self, name: str, value: float = 1.0, *, label: str = "") -> None:
        counter = self._counters[name]
        (counter.labels(label) if COUNTERS[name][1] else counter).inc(value)

    def merge(self, sums: Mapping[str, float]) -> None:
        """Takes in what a job's meter summed up."""
        for key, value in sums.items():
            name, _, label = key.partition(_SEPARATOR)
            if name in self._counters:
                self.add(name, value, label=label)

    def gauge(self, name: str, doc: str, read: Callable[[], float]) -> None:
        """Exports `roomscribe_<name>`, read at each scrape."""
        Gauge(f"roomscribe_{name}", doc, registry=self.registry).set_function(read)


@asynccontextmanager
async def serving(
    metrics: Metrics, host: str, port: int, ready: Callable[[], Mapping[str, bool]]
) -> AsyncIterator[int]:
    """Serves `GET /metrics` and `GET /ready`; yields the port.

    Args:
        metrics: what `/metrics` shows.
        host: address to listen at.
        port: 0 takes any free one.
        ready: state by part; `/ready` answers 503 where one is false.
    """

    async def show(_request: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def tell(_request: web.Request) -> web.Response:
        parts = dict(ready())
        return web.json_response(parts, status=200 if all(parts.values()) else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", show), web.get("/ready", tell)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        logger.info("metrics are served", extra={"address": f"http://{host}:{bound}/metrics"})
        yield bound
    finally:
        await runner.cleanup()
