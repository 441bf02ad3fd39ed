"""The transcription WebSocket: everything is checked before the upgrade, then frames flow out.

`/api/realtime/transcribe?token=&sessionSlug=&after=`. The client has nothing to say; a few
messages are ignored, a flood ends the connection.
"""

import logging
import time
from collections import deque
from dataclasses import dataclass
from uuid import UUID

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import AccessError, AppError, NotFound, StoreUnavailable
from core.ids import Slug
from db import sessions
from db.sessions import SessionRow
from web.endpoint import refusal
from web.hub import Channel
from web.limits import JOINS
from web.problems import Problem, retry_after
from web.services import Services
from web.socket import STATE_KEY, DirectSocket
from web.viewer import Viewer

log = logging.getLogger(__name__)

PATH = "/api/realtime/transcribe"
BACKLOG_WITHIN_S = 1.5
_PARAMETERS = frozenset({"token", "sessionSlug", "after"})
_MAX_AFTER_DIGITS = 18
_MESSAGES = 30
_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    """What a valid request may watch, from where on, until when."""

    slug: Slug
    session_id: UUID
    session: SessionRow | None
    """None while the database is away: then the token alone has to do."""
    after: int
    expires_at: float


class Realtime:
    """The endpoint as an ASGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        await receive()
        try:
            ticket = await _ticket(services, scope)
            channel = await services.hub.open(
                ticket.slug, ticket.session_id, ticket.session, BACKLOG_WITHIN_S
            )
            _check_room(services, channel)
        except Problem as problem:
            await _refuse(problem.response(), send)
        except AppError as exc:
            await _refuse(refusal(exc), send)
        else:
            await send({"type": "websocket.accept"})
            await _watch(services, channel, ticket, scope, receive)


async def _ticket(services: Services, scope: Scope) -> _Ticket:
    """Checks address, token and session.

    Raises:
        Problem: 400 or 429.
        AccessError: 401 where the token does not hold, 403 where it is for another session.
        NotFound: the session was deleted.
    """
    connection = HTTPConnection(scope)
    address = connection.client.host if connection.client else "unknown"
    query = QueryParams(scope["query_string"])
    unknown = sorted(set(query) - _PARAMETERS)
    if unknown:
        raise Problem(400, "unknown_parameter", f"unknown query parameter: {unknown[0][:50]}")
    slug, after = query.get("sessionSlug", ""), query.get("after", "0")
    if not (after.isascii() and after.isdigit()) or len(after) > _MAX_AFTER_DIGITS:
        raise Problem(400, "invalid_parameter", "after: a cursor of ours")
    await services.limits.check(JOINS, f"address:{address}", None)
    claims = services.signer.read("transcription", query.get("token", ""))
    if not slug or claims.get("sessionSlug") != slug:
        raise AccessError("forbidden", "the token is for another session", status=403)
    session_id = UUID(claims["sessionId"])
    session = await _session(services, Slug(slug), session_id)
    return _Ticket(
        slug=Slug(slug),
        session_id=session_id,
        session=session,
        after=int(after),
        expires_at=float(claims["exp"]),
    )


async def _session(services: Services, slug: Slug, session_id: UUID) -> SessionRow | None:
    try:
        async with services.connection() as conn:
            session = await sessions.find(conn, slug)
    except StoreUnavailable:
        return None
    if session.id != session_id:
        raise NotFound("no such session")
    return session


def _check_room(services: Services, channel: Channel) -> None:
    if len(channel.viewers) >= services.settings.viewers_per_session:
        raise Problem(429, "too_many_viewers", "no place is left", retry_after(30))


async def _refuse(response: Response, send: Send) -> None:
    """Answers the upgrade with an ordinary HTTP response."""
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})


async def _watch(
    services: Services, channel: Channel, ticket: _Ticket, scope: Scope, receive: Receive
) -> None:
    socket: DirectSocket = scope["state"][STATE_KEY]
    viewer = Viewer(socket, ticket.expires_at)
    services.hub.attach(channel, viewer, ticket.after)
    services.counters.connections.inc()
    heard: deque[float] = deque(maxlen=_MESSAGES)
    try:
        while (await receive())["type"] != "websocket.disconnect":
            now = time.monotonic()
            if len(heard) == _MESSAGES and now - heard[0] < _WITHIN_S:
                viewer.drop("too_many_messages")
            heard.append(now)
    finally:
        services.hub.detach(channel, viewer)
        services.counters.connections.dec()
        services.counters.replaced.inc(viewer.replaced)
        if viewer.dropped is not None:
            services.counters.dropped.labels(viewer.dropped).inc()
