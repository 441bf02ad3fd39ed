"""Webhooks in both directions: signed, repeated, out of order; at least once, under one id."""

import asyncio
import base64
import hashlib
import hmac
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import web as aioweb
from google.protobuf.json_format import MessageToJson
from livekit import api

from core.retry import Backoff
from tests.web.engines import Fallback, engines
from tests.web.lines import segment, stored
from tests.web.service import KEY, LIVEKIT_SECRET, Running, serving, settings_of
from tests.web.sockets import until
from web.deliveries import Deliveries
from web.upkeep import Upkeep

NOW = int(datetime.now(UTC).timestamp())


def event(kind: str, slug: str, at: int, **fields: Any) -> api.WebhookEvent:
    return api.WebhookEvent(
        event=kind,
        room=api.Room(name=slug, sid="RM_1"),
        id=f"EV_{random.getrandbits(60)}",
        created_at=at,
        **fields,
    )


def person(joined_at: int, identity: str = "guest-x") -> api.ParticipantInfo:
    return api.ParticipantInfo(
        identity=identity, name="Xenia", joined_at=joined_at, joined_at_ms=joined_at * 1000
    )


async def sent(web: Running, happened: api.WebhookEvent, secret: str = LIVEKIT_SECRET) -> int:
    body = MessageToJson(happened)
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    token = api.AccessToken(KEY, secret).with_sha256(digest).to_jwt()
    answer = await web.http.post(
        "/api/livekit/webhook", content=body, headers={"authorization": token}
    )
    return answer.status_code


async def made(web: Running) -> str:
    slug: str = (await web.http.post("/api/sessions", json={"title": "T"})).json()["slug"]
    return slug


async def seen(web: Running, slug: str) -> list[tuple[str, bool]]:
    listed = (await web.http.get(f"/api/sessions/{slug}/participants")).json()["participants"]
    return [(entry["identity"], entry["leftAt"] is None) for entry in listed]


async def test_joins_and_leaves_are_noted_in_whatever_order_they_come(web: Running) -> None:
    slug = await made(web)
    first_join = event("participant_joined", slug, NOW, participant=person(NOW))
    first_leave = event("participant_left", slug, NOW + 60, participant=person(NOW))
    second_join = event("participant_joined", slug, NOW + 60, participant=person(NOW + 60))
    for order in (
        (first_join, first_leave, second_join),
        (second_join, first_leave, first_join),
        (first_leave, first_join, second_join, first_leave),
    ):
        for happened in order:
            assert await sent(web, happened) == 200
        assert await seen(web, slug) == [("guest-x", True)]
    gone = event("participant_left", slug, NOW + 90, participant=person(NOW + 60))
    assert await sent(web, gone) == 200
    assert await sent(web, gone) == 200
    assert await seen(web, slug) == [("guest-x", False)]


async def test_only_livekit_is_believed(web: Running) -> None:
    slug = await made(web)
    happened = event("participant_joined", slug, NOW, participant=person(NOW))
    assert await sent(web, happened, secret=LIVEKIT_SECRET[::-1]) == 401
    body = MessageToJson(happened)
    token = api.AccessToken(KEY, LIVEKIT_SECRET).with_sha256("AAAA").to_jwt()
    for headers in ({}, {"authorization": "x"}, {"authorization": token}):
        answer = await web.http.post("/api/livekit/webhook", content=body, headers=headers)
        assert answer.status_code == 401
    assert await seen(web, slug) == []


async def test_a_room_that_stays_empty_ends_its_session(database_url: str) -> None:
    async with serving(settings_of(database_url, SESSION_GRACE_SECONDS="60")) as web:
        reopened, over = await made(web), await made(web)
        for slug in (reopened, over):
            joined = event("participant_joined", slug, NOW - 300, participant=person(NOW - 300))
            assert await sent(web, joined) == 200
            assert await sent(web, event("room_finished", slug, NOW - 120)) == 200
        assert await sent(web, event("room_started", reopened, NOW - 100)) == 200
        await web.service.upkeep.work()
        states = {
            slug: (await web.http.get(f"/api/sessions/{slug}")).json()["status"]
            for slug in (reopened, over)
        }
        assert states == {reopened: "ACTIVE", over: "ENDED"}
        assert await seen(web, over) == [("guest-x", False)]
        late = event("room_finished", reopened, NOW - 110)
        assert await sent(web, late) == 200
        await web.service.upkeep.work()
        assert (await web.http.get(f"/api/sessions/{reopened}")).json()["status"] == "ACTIVE"


async def test_egress_events_reach_the_fallback_and_rooms_wake_the_steward(
    database_url: str,
) -> None:
    plugged = engines()
    assert isinstance(plugged.fallback, Fallback)
    heard: list[tuple[str, bytes]] = []
    async with serving(settings_of(database_url), plugged) as web:
        bus = web.service.services.bus
        with bus.subscribe(lambda slug, message: heard.append((slug, message)), lambda: None):
            slug = await made(web)
            info = api.EgressInfo(egress_id="EG_1", room_name=slug)
            assert await sent(web, event("egress_ended", slug, NOW, egress_info=info)) == 200
            assert [one.egress_id for one in plugged.fallback.changed] == ["EG_1"]
            await until(lambda: (slug, b'{"type":"wake"}') in heard)


class Receiver:
    """Somebody else's server, which fails when told to."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.failures = 0
        self.url = ""

    async def take(self, request: aioweb.Request) -> aioweb.Response:
        body = await request.read()
        if self.failures > 0:
            self.failures -= 1
            return aioweb.Response(status=500)
        self.got.append(({k.lower(): v for k, v in request.headers.items()}, body))
        return aioweb.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = aioweb.Application()
    app.router.add_post("/hook", found.take)
    runner = aioweb.AppRunner(app)
    await runner.setup()
    site = aioweb.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found.url = f"http://127.0.0.1:{port}/hook"
    yield found
    await runner.cleanup()


async def test_the_end_and_the_whole_transcript_are_told_until_somebody_listens(
    database_url: str, receiver: Receiver
) -> None:
    settings = settings_of(
        database_url, WEBHOOK_URLS=receiver.url, WEBHOOK_SECRET="shared", SESSION_GRACE_SECONDS="0"
    )
    receiver.failures = 2
    async with serving(settings) as web:
        services = web.service.services
        slug = await made(web)
        await stored(database_url, slug, segment(slug, 1))
        assert await sent(web, event("room_finished", slug, NOW - 60)) == 200
        upkeep = Upkeep(services, quiet_s=0.0)
        quick = Backoff(first_s=0.01, max_s=0.01)
        deliveries = Deliveries(services, web.http, backoff=quick)
        async with asyncio.timeout(20):
            while len(receiver.got) < 2:
                await upkeep.work()
                await deliveries.deliver_due()
        await upkeep.work()
        await deliveries.deliver_due()
    assert len(receiver.got) == 2
    events = [json.loads(body) for _, body in receiver.got]
    assert {e["type"] for e in events} == {"session.ended", "transcript.ready"}
    assert {e["session"]["slug"] for e in events} == {slug}
    for headers, body in receiver.got:
        message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.new(b"shared", message, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        assert headers["webhook-id"] == json.loads(body)["id"]
    conn = await asyncpg.connect(database_url)
    rows = await conn.fetch("select attempts, delivered_at from webhook_deliveries")
    await conn.close()
    assert sum(row["attempts"] for row in rows) == 4
    assert all(row["delivered_at"] is not None for row in rows)


async def test_what_a_space_need_not_keep_is_removed(web: Running, database_url: str) -> None:
    old, young = await made(web), await made(web)
    conn = await asyncpg.connect(database_url)
    await conn.execute("update spaces set retention_days = 30")
    for slug, days in ((old, 31), (young, 29)):
        await conn.execute(
            "update sessions set status = 'ended', ended_at = $2 where slug = $1",
            slug,
            datetime.now(UTC) - timedelta(days=days),
        )
    await conn.close()
    await web.service.upkeep.work()
    assert (await web.http.get(f"/api/sessions/{old}")).status_code == 404
    assert (await web.http.get(f"/api/sessions/{young}")).status_code == 200
