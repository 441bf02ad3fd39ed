"""The ASGI application, made from the route table and the services."""

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp

from web import realtime
from web.oidc import sign_in_routes
from web.openapi import document
from web.page import page_routes
from web.problems import problem_response
from web.reference import reference_routes
from web.router import routes_of
from web.services import Services
from web.settings import WebSettings
from web.shield import Shield
from web.table import TABLE

log = logging.getLogger(__name__)

_MIN_GZIP_BYTES = 1024
_CODES = {404: "not_found", 405: "method_not_allowed"}


def create_app(services: Services, further: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The whole service; `further` routes belong to engines that the composition root wires."""
    reference = reference_routes(document(TABLE, services.settings))
    app = Starlette(
        routes=[
            *routes_of(TABLE, services),
            WebSocketRoute(realtime.PATH, realtime.Realtime(services)),
            *further,
            *sign_in_routes(services),
            *reference,
            *page_routes(services),
        ],
        middleware=_middleware(services.settings),
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    return Shield(app, services.settings)


def _middleware(settings: WebSettings) -> list[Middleware]:
    layers = []
    if settings.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["authorization", "content-type", "if-none-match"],
                expose_headers=["etag", "retry-after", "content-disposition"],
                allow_credentials=True,
                max_age=600,
            )
        )
    layers.append(Middleware(GZipMiddleware, minimum_size=_MIN_GZIP_BYTES))
    return layers


async def _refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = _CODES.get(exc.status_code, "refused")
    return problem_response(exc.status_code, code, exc.detail, exc.headers)


async def _failed(_request: Request, _exc: Exception) -> Response:
    """The ASGI error handler: Starlette logs the exception after this answer."""
    return problem_response(500, "internal_error", "an error of ours; it is in the log")
