"""Whether the service lives, and whether each part that it stands on answers."""

import asyncio
from typing import Literal

from starlette.responses import Response

from core.errors import StoreUnavailable
from db.pool import Connection
from web.access import Who
from web.call import Call
from web.route import AnyRoute, Model, NoQuery, Route

State = Literal["up", "down", "off"]


class Part(Model):
    """One thing that the service stands on."""

    state: State
    detail: str | None = None


class Health(Model):
    """Each part's state. `ok`: everything is up; `degraded`: live lines go on regardless."""

    status: Literal["ok", "degraded"]
    parts: dict[str, Part]


class Alive(Model):
    """The process answers."""

    status: Literal["ok"] = "ok"


async def live(_call: Call[NoQuery, None]) -> Alive:
    return Alive()


async def report(call: Call[NoQuery, None]) -> Health:
    return await _health(call)


async def ready(call: Call[NoQuery, None]) -> Health | Response:
    health = await _health(call)
    if health.parts["database"].state != "up":
        return Response(
            health.model_dump_json(by_alias=True),
            503,
            headers={"cache-control": "no-store", "retry-after": "2"},
            media_type="application/json",
        )
    return health


async def _health(call: Call[NoQuery, None]) -> Health:
    services = call.services
    parts: dict[str, Part] = {}

    async def check_database() -> None:
        parts["database"] = await _database(call)

    async def check_livekit() -> None:
        up = await services.rooms.is_reachable()
        parts["livekit"] = Part(state="up" if up else "down")

    async with asyncio.TaskGroup() as group:
        group.create_task(check_database(), name="health:database")
        group.create_task(check_livekit(), name="health:livekit")
    parts["transcription"] = Part(
        state="up" if services.settings.transcription_configured else "off"
    )
    parts["fallback"] = Part(state="off" if services.fallback is None else "up")
    parts["insights"] = Part(state="off" if services.insights is None else "up")
    is_ok = all(part.state != "down" for part in parts.values())
    ordered = dict(sorted(parts.items()))
    return Health(status="ok" if is_ok else "degraded", parts=ordered)


async def _database(call: Call[NoQuery, None]) -> Part:
    try:
        async with call.connection() as conn:
            await _ping(conn)
    except StoreUnavailable:
        return Part(state="down", detail="does not answer")
    return Part(state="up", detail=call.services.database.kind)


async def _ping(conn: Connection) -> None:
    await conn.fetchval("select 1")


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/health",
        handler=report,
        who=Who.PUBLIC,
        summary="Each part's state",
        tag="operation",
        answer=Health,
        uses_store=False,
    ),
    Route(
        method="GET",
        path="/health/live",
        handler=live,
        who=Who.PUBLIC,
        summary="The process answers",
        tag="operation",
        answer=Alive,
        uses_store=False,
    ),
    Route(
        method="GET",
        path="/health/ready",
        handler=ready,
        who=Who.PUBLIC,
        summary="Reads can be served; else 503 with each part's state",
        tag="operation",
        answer=Health,
        uses_store=False,
    ),
)
