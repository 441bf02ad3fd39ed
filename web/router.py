"""The table as Starlette routes: one per path, which knows all of the path's methods."""

from collections.abc import Sequence
from time import perf_counter

from starlette.requests import Request
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from web.endpoint import answer
from web.problems import problem_response
from web.route import AnyRoute
from web.services import Services


class PathEndpoint:
    """All methods of one path; others get 405 with the right `Allow`."""

    def __init__(self, routes: Sequence[AnyRoute], services: Services) -> None:
        self._routes = {route.method: route for route in routes}
        self._services = services
        methods = {*self._routes, *(("HEAD",) if "GET" in self._routes else ())}
        self._allow = ", ".join(sorted(methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        method = "GET" if request.method == "HEAD" else request.method
        route = next((r for name, r in self._routes.items() if name == method), None)
        if route is None:
            response = problem_response(
                405, "method_not_allowed", f"use {self._allow}", {"allow": self._allow}
            )
        else:
            began = perf_counter()
            response = await answer(route, self._services, request)
            self._services.counters.requests.labels(route.key, response.status_code).observe(
                perf_counter() - began
            )
        await response(scope, receive, send)


def routes_of(table: Sequence[AnyRoute], services: Services) -> list[StarletteRoute]:
    by_path: dict[str, list[AnyRoute]] = {}
    for route in table:
        by_path.setdefault(route.path, []).append(route)
    return [
        StarletteRoute(path, endpoint=PathEndpoint(routes, services))
        for path, routes in by_path.items()
    ]
