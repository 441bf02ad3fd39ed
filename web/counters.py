"""What this process counts, as Prometheus families in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Counters:
    """One process's metrics; names begin with `roomscribe_web_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge(
            "roomscribe_web_viewers", "WebSocket viewers now", registry=self.registry
        )
        self.messages = Counter(
            "roomscribe_web_messages_sent",
            "Messages sent to WebSocket viewers",
            registry=self.registry,
        )
        self.errors = Counter(
            "roomscribe_web_errors", "Errors by kind", ["kind"], registry=self.registry
        )
        self.dropped = Counter(
            "roomscribe_web_viewers_dropped",
            "Viewers let go, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.replaced = Counter(
            "roomscribe_web_interims_replaced",
            "Interims that slow viewers never got because a newer one replaced them",
            registry=self.registry,
        )
        self.broadcast = Histogram(
            "roomscribe_web_broadcast_seconds",
            "Time to hand one message to all viewers of its session",
            buckets=_FAST,
            registry=self.registry,
        )
        self.ingest_latency = Histogram(
            "roomscribe_web_ingest_broadcast_seconds",
            "From a message's `ts` to its broadcast, where an ingest process sent it",
            buckets=_REQUESTS,
            registry=self.registry,
        )
        self.requests = Histogram(
            "roomscribe_web_request_seconds",
            "Time to answer a request, by route and status",
            ["route", "status"],
            buckets=_REQUESTS,
            registry=self.registry,
        )
        self.deliveries = Counter(
            "roomscribe_web_webhook_deliveries",
            "Attempts to deliver a webhook of ours, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.received = Counter(
            "roomscribe_web_webhooks_received",
            "Webhooks from LiveKit, by event",
            ["event"],
            registry=self.registry,
        )

    def sent(self, viewers: int, took_s: float) -> None:
        """Notes that one message went to so many viewers."""
        self.messages.inc(viewers)
        self.broadcast.observe(took_s)
