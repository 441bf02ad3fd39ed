"""Webhooks from LiveKit: signed, repeated, out of order; hints, from which the store learns."""

import base64
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import jwt
from google.protobuf.json_format import Parse, ParseError
from livekit import api
from starlette.responses import Response

from core.errors import AccessError
from core.ids import uuid7
from core.wire import WAKE
from db import participants, rooms
from db.pool import Connection, transaction
from web.access import Who
from web.call import Call
from web.endpoint import read_body
from web.limits import SERVICES
from web.problems import Problem
from web.route import AnyRoute, Model, NoQuery, Route
from web.tokens import same_secret

MAX_BYTES = 256 * 1024
_KINDS = {0: "standard", 1: "ingress", 2: "egress", 3: "sip", 4: "agent"}
_WAKING = frozenset({"room_started", "participant_joined", "participant_left", "egress_ended"})


class Received(Model):
    """The event was taken, now or before."""

    success: Literal[True] = True


async def livekit(call: Call[NoQuery, None]) -> Received | Response:
    body = await read_body(call.request, MAX_BYTES)
    event = _verified(call, body)
    call.services.counters.received.labels(event.event[:40] or "unknown").inc()
    room = event.room.name or event.egress_info.room_name
    async with call.connection() as conn, transaction(conn):
        is_new = not event.id or await rooms.first_time(conn, event.id[:128])
        if is_new and room:
            await _note(conn, room, event)
    if is_new and event.event.startswith("egress_") and call.services.fallback is not None:
        call.services.fallback.egress_changed(event.egress_info)
    if is_new and room and event.event in _WAKING:
        await call.services.bus.publish([(room, WAKE)])
    return Received()


def _verified(call: Call[NoQuery, None], body: bytes) -> api.WebhookEvent:
    settings = call.services.settings
    verifier = api.TokenVerifier(settings.livekit_api_key, settings.livekit_api_secret)
    token = call.request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    try:
        claims = verifier.verify(token)
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as exc:
        raise AccessError("invalid_signature", "the webhook is not signed by us") from exc
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if not same_secret(claims.sha256 or "", digest):
        raise AccessError("invalid_signature", "the body is not the signed one")
    try:
        return Parse(body, api.WebhookEvent(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError) as exc:
        raise Problem(400, "invalid_body", "not a webhook event") from exc


async def _note(conn: Connection, room: str, event: api.WebhookEvent) -> None:
    session_id = await rooms.session_of(conn, room)
    if session_id is None:
        return
    at = datetime.fromtimestamp(event.created_at, UTC)
    match event.event:
        case "room_started":
            await rooms.opened(conn, session_id, event.room.sid, at)
        case "room_finished":
            await rooms.closed(conn, session_id, at + timedelta(seconds=1))
        case "participant_joined":
            await rooms.opened(conn, session_id, event.room.sid, at)
            who = event.participant
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            await participants.joined(
                conn,
                participant_id=uuid7(now_ms, secrets.token_bytes(10)),
                session_id=session_id,
                identity=who.identity,
                name=who.name,
                kind=_KINDS.get(who.kind, "standard"),
                user_id=_user_id(who.attributes.get("roomscribe.user_id", "")),
                role="host" if who.attributes.get("roomscribe.role") == "host" else "guest",
                at=_joined_at(event),
            )
        case "participant_left":
            await participants.left(
                conn,
                session_id=session_id,
                identity=event.participant.identity,
                since=_joined_at(event),
                at=at,
            )
        case _:
            return


def _user_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _joined_at(event: api.WebhookEvent) -> datetime:
    """When the presence that the event is about began."""
    ms = event.participant.joined_at_ms or event.participant.joined_at * 1000
    return datetime.fromtimestamp((ms or event.created_at * 1000) / 1000, UTC)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/api/livekit/webhook",
        handler=livekit,
        who=Who.SIGNED,
        summary="Take an event of the LiveKit server",
        tag="webhooks",
        answer=Received,
        refusals=frozenset({401, 408, 413}),
        allowance=SERVICES,
    ),
)
