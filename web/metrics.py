"""`/metrics`: our own counters and those of our other processes, as Prometheus text or as JSON."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, Response

from core.errors import AccessError
from web.access import Who
from web.call import Call
from web.limits import READS
from web.route import AnyRoute, NoQuery, Route
from web.services import Services
from web.tokens import same_secret

log = logging.getLogger(__name__)

GATHER_WITHIN_S = 1.5
_MAX_SOURCE_CHARS = 2_000_000
_PREFIX = "roomscribe_"
_PCM_BYTES_PER_S = 32_000
"""What Gladia is sent: 16 bits, mono, 16 kHz."""


class _Gathered(Collector):
    """Families that were read from other processes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


async def read(call: Call[NoQuery, None]) -> Response:
    _admit(call)
    services = call.services
    families = _merged([*services.counters.registry.collect(), *await _gather(services)])
    if "application/json" in call.request.headers.get("accept", ""):
        return JSONResponse(old_names(families), headers={"cache-control": "no-store"})
    registry = CollectorRegistry()
    registry.register(_Gathered(families))
    text = generate_latest(registry)
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})


def old_names(families: Iterable[Metric]) -> dict[str, Any]:
    """The metrics under the names that the earlier system used."""
    values: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            if "le" not in sample.labels:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value

    def total(*names: str) -> float:
        return sum(values.get(name, 0.0) for name in names)

    return {
        "connections": total("roomscribe_web_viewers"),
        "messagesSent": total("roomscribe_web_messages_sent_total"),
        "errors": total("roomscribe_web_errors_total"),
        "queue.length": total("roomscribe_journal_records"),
        "latency.request_ms": _mean_ms(values, "roomscribe_web_request_seconds"),
        "latency.broadcast_ms": _mean_ms(values, "roomscribe_web_broadcast_seconds"),
        "gladia.stt_latency_ms": _ratio_ms(
            values, "roomscribe_stt_latency_seconds_total", "roomscribe_stt_latency_count_total"
        ),
        "gladia.audio_bytes_sent": _PCM_BYTES_PER_S
        * total("roomscribe_audio_seconds_billed_total"),
        "gladia.transcripts_received": total("roomscribe_segments_total"),
        "ingest.broadcast_latency_ms": _ratio_ms(
            values,
            "roomscribe_ingest_broadcast_seconds_total",
            "roomscribe_ingest_broadcast_count_total",
        )
        or _mean_ms(values, "roomscribe_web_ingest_broadcast_seconds"),
        "ingest.ffmpeg_errors": total("roomscribe_ingest_ffmpeg_errors_total"),
        "ws.broadcast_loop_ms": _mean_ms(values, "roomscribe_web_broadcast_seconds"),
        "ws.transcripts_sent": total("roomscribe_web_messages_sent_total"),
        "counters": {
            name.removeprefix("roomscribe_").removesuffix("_total"): value
            for name, value in sorted(values.items())
            if name.endswith("_total")
        },
    }


def _mean_ms(values: dict[str, float], name: str) -> float:
    return _ratio_ms(values, f"{name}_sum", f"{name}_count")


def _ratio_ms(values: dict[str, float], total: str, count: str) -> float:
    return round(1000 * values.get(total, 0.0) / (values.get(count) or 1.0), 3)


def _admit(call: Call[NoQuery, None]) -> None:
    """Where a secret is set, metrics are for those who know it."""
    secret = call.services.settings.metrics_secret
    given = call.request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if secret and not same_secret(given, secret):
        raise AccessError("unauthorized", "metrics need the metrics secret")


async def _gather(services: Services) -> list[Metric]:
    """The families of all sources by name; each sample says which source it is from."""
    texts: dict[str, str] = {}
    async with httpx.AsyncClient(timeout=GATHER_WITHIN_S) as http, asyncio.TaskGroup() as group:
        for source in services.settings.metrics_sources:
            group.create_task(_read(services, http, source, texts), name="metrics:source")
    families: dict[str, Metric] = {}
    for source, text in sorted(texts.items()):
        origin = urlsplit(source).netloc
        for family in text_string_to_metric_families(text):
            if family.name.startswith(_PREFIX):
                _add(families.setdefault(family.name, _empty(family)), family, origin)
    return list(families.values())


def _merged(families: Iterable[Metric]) -> list[Metric]:
    """One family for each name: a page with two of them would be refused."""
    merged: dict[str, Metric] = {}
    for family in families:
        merged.setdefault(family.name, _empty(family)).samples.extend(family.samples)
    return list(merged.values())


def _empty(family: Metric) -> Metric:
    return Metric(family.name, family.documentation, family.type)


def _add(to: Metric, family: Metric, origin: str) -> None:
    for sample in family.samples:
        to.samples.append(sample._replace(labels={**sample.labels, "source": origin}))


async def _read(
    services: Services, http: httpx.AsyncClient, source: str, texts: dict[str, str]
) -> None:
    try:
        secret = services.settings.metrics_secret
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        answer = await http.get(source, headers=headers)
        answer.raise_for_status()
    except httpx.HTTPError as exc:
        services.counters.errors.labels("metrics_source").inc()
        log.warning("metrics source is away", extra={"error": type(exc).__name__})
        return
    texts[source] = answer.text[:_MAX_SOURCE_CHARS].rpartition("\n")[0] + "\n"


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/metrics",
        handler=read,
        who=Who.PUBLIC,
        summary="Metrics of this process and of those in METRICS_SOURCES",
        tag="operation",
        media=("text/plain", "application/json"),
        refusals=frozenset({401}),
        allowance=READS,
        uses_store=False,
    ),
)
