"""The ingest's counters as Prometheus families, for the `/metrics` of the process that runs it."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.flusher import Flusher
from agent.ingest.acceptor import Acceptor
from agent.ingest.counters import IngestCounters
from agent.ingest.outlets import Outlet
from agent.ingest.track import TrackEndpoint
from core.audio import SAMPLE_RATE

_PREFIX = "roomscribe_ingest_"


class IngestMetrics(Collector):
    """Reads the counters at each scrape; it has none of its own."""

    def __init__(
        self,
        *,
        counters: IngestCounters,
        acceptor: Acceptor,
        endpoint: TrackEndpoint,
        outlet: Outlet,
        flusher: Flusher,
        rooms: Callable[[], int],
    ) -> None:
        self._counters = counters
        self._acceptor = acceptor
        self._endpoint = endpoint
        self._outlet = outlet
        self._flusher = flusher
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        own, port, outlet = self._counters, self._acceptor.counters, self._outlet
        yield _by("ffmpeg_errors", "Faults of decoders", "kind", own.ffmpeg_errors)
        yield _by("egress_starts", "Starts of an egress, by outcome", "outcome", own.egress_starts)
        yield _by("rtmp_closed", "Ended RTMP connections", "reason", port.closed)
        yield _by("rtmp_ignored", "Media that was not decoded", "kind", port.ignored)
        yield _by("tracks_closed", "Ended track connections", "reason", self._endpoint.closed)
        yield _sum("rtmp_publishes", "RTMP publishes that were let in", port.publishes)
        yield _sum("rtmp_received_bytes", "Bytes from RTMP publishers", port.received_bytes)
        yield _sum("decoded_seconds", "Audio from decoders", own.pcm_samples / SAMPLE_RATE)
        yield _sum("finals", "Finals made", own.finals)
        yield _sum("broadcast_count", "Messages handed to the web service", outlet.sent)
        yield _sum("broadcast_seconds", "Time that those took, together", outlet.took_s)
        yield _sum("broadcast_dropped", "Messages that gave way to newer ones", outlet.dropped)
        yield _sum("broadcast_failures", "Messages that were not taken", outlet.failed)
        yield GaugeMetricFamily(
            f"{_PREFIX}rooms", "Rooms that the fallback carries", value=self._rooms()
        )
        yield GaugeMetricFamily(
            "roomscribe_journal_records",
            "Records of this host that wait for PostgreSQL, told by the process that moves them",
            value=self._flusher.waiting,
        )


def _sum(name: str, doc: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, doc, value=value)


def _by(name: str, doc: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, doc, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
