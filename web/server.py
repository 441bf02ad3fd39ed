"""uvicorn as we run it: patient with streams, not with clients that trickle their headers."""

import asyncio
import logging
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from web.settings import WebSettings
from web.socket import DirectSocket

HEADERS_WITHIN_S = 10.0
KEEP_ALIVE_S = 15
GRACEFUL_S = 8


class HastyH11Protocol(H11Protocol):
    """Closes a connection on which a request's headers take longer than ten seconds.

    uvicorn itself waits for ever, so that a few sockets per client could use up all of ours.
    """

    _headers_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self.conn.trailing_data[0] and self._headers_timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._headers_timer = self.loop.call_later(HEADERS_WITHIN_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None


def configured(app: ASGIApp, settings: WebSettings, **overrides: Any) -> uvicorn.Config:
    """The server's configuration; WebSocket pings are the hub's, not uvicorn's.

    Track Egress answers our pings with a payload of its own, which uvicorn would take for
    silence and close the stream after forty seconds. Its own log is heard from WARNING on: it
    writes the address of every WebSocket, in which the token stands.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": HastyH11Protocol,
        "ws": DirectSocket,
        "ws_ping_interval": None,
        "ws_ping_timeout": None,
        "ws_per_message_deflate": False,
        "ws_max_size": 1024 * 1024,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "server_header": False,
        "access_log": False,
        "log_config": None,
        "lifespan": "off",
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": GRACEFUL_S,
        "h11_max_incomplete_event_size": 32 * 1024,
    }
    return uvicorn.Config(app, **(options | overrides))
