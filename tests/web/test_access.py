"""Who may do what: every route of the table against every kind of caller, in closed mode."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from livekit import api

from core.recap import Recap
from tests.web.lines import segment, stored, stored_recap
from tests.web.service import (
    KEY,
    LIVEKIT_SECRET,
    SERVICE_SECRET,
    Running,
    bearer,
    serving,
    settings_of,
)
from web.route import AnyRoute
from web.table import TABLE

CALLERS = (
    "nobody",
    "guest of another session",
    "guest",
    "seat of another session",
    "seat",
    "member of another space",
    "member",
    "host",
    "service",
    "expired",
    "wrong key",
    "alg none",
    "wrong audience",
    "forged seat",
)
IN = "in"
"""Let in: whatever the answer, it is not 401, 403 or 404."""
_BAD = "401 401 401 401 401"
PUBLIC = f"{' '.join(['in'] * 9)} in in in in in"
LINK = f"{' '.join(['in'] * 9)} {_BAD}"
#       nobody other-guest guest other-seat seat other-member member host service
USER = f"401    403         403   403        403  in           in     in   403 {_BAD}"
READER = f"401  403         in    403        in   403          in     in   403 {_BAD}"
MEMBER = f"401  403         403   403        403  403          in     in   403 {_BAD}"
SPACE = f"401   403         403   403        403  404          in     in   403 {_BAD}"
ADMIN = f"401   403         403   403        403  404          403    in   403 {_BAD}"
SEAT = f"401    403         403   403        in   403          403    403  403 {_BAD}"
SERVICE = f"401 403         403   403        403  403          403    403  in  {_BAD}"
SIGNED = "401 " * len(CALLERS)

MATRIX = {
    "POST /api/sessions": USER,
    "GET /api/sessions": USER,
    "GET /api/sessions/{slug}": LINK,
    "PATCH /api/sessions/{slug}": MEMBER,
    "POST /api/sessions/{slug}/end": MEMBER,
    "DELETE /api/sessions/{slug}": MEMBER,
    "GET /api/sessions/{slug}/token": LINK,
    "GET /api/sessions/{slug}/transcription/token": READER,
    "GET /api/sessions/{slug}/participants": READER,
    "GET /api/sessions/{slug}/participants/{identity}": READER,
    "GET /api/sessions/{slug}/transcript": READER,
    "GET /api/sessions/{slug}/transcript.{format}": READER,
    "GET /api/sessions/{slug}/search": READER,
    "GET /api/search": USER,
    "GET /api/sessions/{slug}/insights": READER,
    "POST /api/sessions/{slug}/ai/realtime-insights": READER,
    "GET /api/sessions/{slug}/summary": READER,
    "POST /api/sessions/{slug}/summary": MEMBER,
    "GET /api/sessions/{slug}/summary.{format}": READER,
    "GET /api/sessions/{slug}/stats": READER,
    "POST /api/transcription/start": MEMBER,
    "POST /api/transcription/stop": MEMBER,
    "POST /api/active-speaker": SEAT,
    "POST /api/realtime/transcribe/broadcast": SERVICE,
    "POST /api/livekit/webhook": SIGNED,
    "GET /api/spaces": USER,
    "POST /api/spaces": USER,
    "GET /api/spaces/{spaceId}/members": SPACE,
    "PUT /api/spaces/{spaceId}/members/{userId}": ADMIN,
    "DELETE /api/spaces/{spaceId}/members/{userId}": ADMIN,
    "GET /api/config": PUBLIC,
    "GET /api/me": LINK,
    "PUT /api/me": LINK,
    "POST /api/me/sign-out": LINK,
    "GET /health": PUBLIC,
    "GET /health/live": PUBLIC,
    "GET /health/ready": PUBLIC,
    "GET /metrics": PUBLIC,
}
BODIES: dict[str, dict[str, object]] = {
    "POST /api/sessions": {},
    "PATCH /api/sessions/{slug}": {"title": "T"},
    "POST /api/sessions/{slug}/ai/realtime-insights": {},
    "POST /api/transcription/start": {"sessionSlug": "{slug}"},
    "POST /api/transcription/stop": {"sessionSlug": "{slug}"},
    "POST /api/active-speaker": {"sessionSlug": "{slug}", "speakers": [], "at": 1},
    "POST /api/realtime/transcribe/broadcast": {"sessionSlug": "{slug}", "type": "status"},
    "POST /api/spaces": {"slug": "{unique}", "name": "Unique"},
    "PUT /api/spaces/{spaceId}/members/{userId}": {"role": "member"},
    "PUT /api/me": {"name": "Ann"},
}
QUERIES = {
    "GET /api/sessions/{slug}/token": {"name": "Ann"},
    "GET /api/sessions/{slug}/search": {"q": "x"},
    "GET /api/search": {"q": "x"},
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Two sessions in two spaces, and what callers know of them."""

    slug: str
    space_id: str
    member_id: str
    credentials: Mapping[str, dict[str, str]]


def test_every_route_has_its_row() -> None:
    assert set(MATRIX) == {route.key for route in TABLE}
    for key, row in MATRIX.items():
        assert len(row.split()) == len(CALLERS), key


async def test_every_caller_gets_what_the_row_says(database_url: str) -> None:
    wrong: list[str] = []
    async with serving(settings_of(database_url, AUTH_MODE="closed")) as web:
        scene = await _scene(web)
        await stored(database_url, scene.slug, segment(scene.slug, 1))
        await stored_recap(database_url, scene.slug, Recap())
        for route in TABLE:
            for caller, expected in zip(CALLERS, MATRIX[route.key].split(), strict=True):
                answer = await _asked(web, route, scene, caller)
                got = str(answer.status_code)
                if got not in {"401", "403", "404"}:
                    got = IN
                if got != expected:
                    wrong.append(f"{route.key} by {caller}: {answer.status_code}, not {expected}")
    assert not wrong, "\n".join(wrong)


async def test_in_open_mode_only_secrets_close_a_route(web: Running) -> None:
    slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
    assert (await web.http.get(f"/api/sessions/{slug}/transcript")).status_code == 200
    message = {"type": "status", "sessionSlug": slug}
    refused = await web.http.post("/api/realtime/transcribe/broadcast", json=message)
    assert refused.status_code == 401
    forged = await web.http.get("/api/sessions", headers=_bearer(bearer("x", secret="w" * 40)))
    assert forged.status_code == 401


async def test_cookies_of_another_sites_page_change_nothing(web: Running) -> None:
    answer = await web.http.post(
        "/api/sessions", json={}, headers={"origin": "https://evil.example"}
    )
    assert answer.json()["error"]["code"] == "foreign_origin"
    own = await web.http.post("/api/sessions", json={}, headers={"origin": web.url})
    assert own.status_code == 201


async def test_nobody_learns_whether_a_space_or_a_person_exists(closed_web: Running) -> None:
    async with closed_web.client(bearer("eve", spaces=("eve",))) as eve:
        unknown = await eve.get("/api/spaces/nowhere/members")
        foreign = await eve.get("/api/spaces/default/members")
    assert (unknown.status_code, unknown.content) == (foreign.status_code, foreign.content)


async def _scene(web: Running) -> Scene:
    async with web.client(bearer("hedy", name="Hedy")) as hedy:
        space = (await hedy.post("/api/spaces", json={"slug": "team", "name": "Team"})).json()
        slug = (await hedy.post("/api/sessions", json={"spaceId": "team"})).json()["slug"]
        async with web.client(bearer("mary", spaces=("team",))) as mary:
            await mary.get(f"/api/sessions/{slug}/token")
            member_id = (await mary.get("/api/me")).json()["userId"]
        await hedy.put(f"/api/spaces/team/members/{member_id}", json={"role": "member"})
    async with web.client(bearer("otto", spaces=("others",))) as otto:
        other = (await otto.post("/api/sessions", json={})).json()["slug"]
    guest, seat = await _joined(web, slug)
    other_guest, other_seat = await _joined(web, other)
    return Scene(
        slug=slug,
        space_id=space["id"],
        member_id=member_id,
        credentials={
            "nobody": {},
            "guest of another session": {"cookie": other_guest},
            "guest": {"cookie": guest},
            "seat of another session": _bearer(other_seat),
            "seat": _bearer(seat),
            "member of another space": _bearer(bearer("otto", spaces=("others",))),
            "member": _bearer(bearer("mary")),
            "host": _bearer(bearer("hedy")),
            "service": _bearer(SERVICE_SECRET),
            "expired": _bearer(bearer("hedy", ttl_s=-60)),
            "wrong key": _bearer(bearer("hedy", secret="x" * 40)),
            "alg none": _bearer(bearer("hedy", algorithm="none")),
            "wrong audience": _bearer(bearer("hedy", audience="transcription")),
            "forged seat": _bearer(_forged_seat(slug)),
        },
    )


async def _joined(web: Running, slug: str) -> tuple[str, str]:
    """The cookie header of a guest who joined, and their room token."""
    async with web.client() as guest:
        answer = await guest.get(f"/api/sessions/{slug}/token", params={"name": "G"})
        cookie = "; ".join(f"{name}={value}" for name, value in guest.cookies.items())
        return cookie, answer.json()["token"]


def _forged_seat(slug: str) -> str:
    grants = api.VideoGrants(room=slug, room_join=True)
    token = api.AccessToken(KEY, LIVEKIT_SECRET[::-1]).with_identity("eve").with_grants(grants)
    return token.to_jwt()


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def _asked(web: Running, route: AnyRoute, scene: Scene, caller: str) -> httpx.Response:
    path = (
        route.path.replace("{slug}", scene.slug)
        .replace("{identity}", "guest-ann")
        .replace("{format}", "md")
        .replace("{spaceId}", scene.space_id)
        .replace("{userId}", scene.member_id)
    )
    unique = f"s{abs(hash((route.key, caller)))}"
    body = {
        name: value.replace("{slug}", scene.slug).replace("{unique}", unique)
        if isinstance(value, str)
        else value
        for name, value in BODIES.get(route.key, {}).items()
    }
    async with web.client() as client:  # no cookie outlives its request
        return await client.request(
            route.method,
            path,
            params=QUERIES.get(route.key),
            json=body if route.body is not None else None,
            headers=scene.credentials[caller],
        )
