"""`SERVER_MODE=rtmp`: no service for browsers, only an engine's routes, its metrics and health."""

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from web.server import configured
from web.service import Server
from web.settings import WebSettings
from web.tokens import same_secret


def lone_server(
    settings: WebSettings, routes: Sequence[BaseRoute], metrics: Sequence[Collector]
) -> Server:
    """A server with those routes, `GET /health` and `GET /metrics`."""
    registry = CollectorRegistry()
    for collector in metrics:
        registry.register(collector)

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "mode": "rtmp"})

    async def show(request: Request) -> Response:
        """For the web service that lists us in METRICS_SOURCES, with its metrics secret."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if settings.metrics_secret and not same_secret(given, settings.metrics_secret):
            return Response(status_code=401)
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    own = [Route("/health", health), Route("/health/live", health), Route("/metrics", show)]
    return Server(configured(Starlette(routes=[*own, *routes]), settings))
