"""`SERVER_MODE=rtmp`: no service for browsers, only the routes of an engine, and its health."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from web.server import configured
from web.service import Server
from web.settings import WebSettings


def lone_server(settings: WebSettings, routes: Sequence[BaseRoute]) -> Server:
    """A server with those routes and `GET /health`."""

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "mode": "rtmp"})

    app = Starlette(routes=[Route("/health", health), *routes])
    return Server(configured(app, settings))
