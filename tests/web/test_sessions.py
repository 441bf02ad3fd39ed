"""Sessions, joining and reading over HTTP."""

import re

import jwt
import pytest
from livekit import api

from dev.livekit import LiveKitServer
from tests.web.lines import segment, stored
from tests.web.service import LIVEKIT_SECRET, Running, bearer, serving, settings_of


async def created(web: Running, **body: object) -> str:
    answer = await web.http.post("/api/sessions", json=body)
    assert answer.status_code == 201, answer.text
    slug: str = answer.json()["slug"]
    return slug


async def test_a_session_is_created_listed_read_changed_and_deleted(web: Running) -> None:
    slug = await created(web, title="Weekly planning", languages=["en", "ru"])
    assert re.fullmatch(r"[0-9A-Za-z]{8}", slug)
    listed = (await web.http.get("/api/sessions")).json()
    assert [entry["slug"] for entry in listed["sessions"]] == [slug]
    assert listed["nextCursor"] is None
    one = (await web.http.get(f"/api/sessions/{slug}")).json()
    assert (one["title"], one["status"], one["languages"]) == (
        "Weekly planning",
        "ACTIVE",
        ["en", "ru"],
    )
    changed = await web.http.patch(f"/api/sessions/{slug}", json={"title": "Daily"})
    assert changed.json()["title"] == "Daily"
    assert changed.json()["languages"] == ["en", "ru"]


async def test_a_list_goes_on_where_the_page_before_ended(web: Running) -> None:
    slugs = [await created(web, title=f"Session {n}") for n in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await web.http.get("/api/sessions", params={"limit": 2, **cursor})).json()
        seen += [entry["slug"] for entry in page["sessions"]]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert seen == slugs[::-1]


async def test_titles_are_found_literally_and_in_any_case(web: Running) -> None:
    await created(web, title="100% of the plan")
    await created(web, title="1000 plans")
    found = (await web.http.get("/api/sessions", params={"q": "100% OF"})).json()
    assert [entry["title"] for entry in found["sessions"]] == ["100% of the plan"]


async def test_a_guest_gets_a_token_with_least_grants_and_a_new_identity(web: Running) -> None:
    slug = await created(web)
    first = (await web.http.get(f"/api/sessions/{slug}/token", params={"name": "Ann"})).json()
    assert first["roomName"] == slug
    assert re.fullmatch(rf"guest-{slug}-\w+", first["identity"])
    claims = jwt.decode(first["token"], LIVEKIT_SECRET, algorithms=["HS256"])
    assert claims["name"] == "Ann"
    assert claims["sub"] == first["identity"]
    assert claims["video"] == {
        "room": slug,
        "roomJoin": True,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": False,
        "canUpdateOwnMetadata": False,
    }
    second = (await web.http.get(f"/api/sessions/{slug}/token", params={"name": "Ann"})).json()
    assert second["identity"] != first["identity"]


async def test_a_reload_keeps_its_identity_and_nobody_else_gets_it(web: Running) -> None:
    slug = await created(web)
    path = f"/api/sessions/{slug}/token"
    identity = (await web.http.get(path, params={"name": "Ann"})).json()["identity"]
    again = await web.http.get(path, params={"identity": identity})
    assert again.json()["identity"] == identity
    async with web.client() as other:
        stolen = await other.get(path, params={"name": "Eve", "identity": identity})
    assert stolen.json()["identity"] != identity


async def test_a_guest_without_a_name_is_told_so(web: Running) -> None:
    slug = await created(web)
    answer = await web.http.get(f"/api/sessions/{slug}/token", params={"name": "  "})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "name_required"


async def test_the_display_name_of_a_signed_in_user_has_priority(web: Running) -> None:
    slug = await created(web)
    async with web.client(bearer("maria", name="Maria P.")) as maria:
        answer = await maria.get(f"/api/sessions/{slug}/token", params={"name": "Hacker"})
    claims = jwt.decode(answer.json()["token"], LIVEKIT_SECRET, algorithms=["HS256"])
    assert claims["name"] == "Maria P."


@pytest.mark.parametrize(
    "path",
    ["", "/token?name=A", "/participants/nobody", "/transcript", "/participants"],
)
async def test_an_unknown_session_is_not_found(web: Running, path: str) -> None:
    for slug in ("nowhere1", "a%00b", "x" * 129):
        answer = await web.http.get(f"/api/sessions/{slug}{path}")
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "not_found"


async def test_unknown_parameters_are_named(web: Running) -> None:
    answer = await web.http.get("/api/sessions", params={"limmit": 3})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "code": "unknown_parameter",
        "message": "unknown query parameter: limmit",
    }


async def test_a_transcript_is_read_page_by_page_and_caught_up(
    web: Running, database_url: str
) -> None:
    slug = await created(web)
    await stored(database_url, slug, *(segment(slug, n) for n in range(5)))
    path = f"/api/sessions/{slug}/transcript"
    first = (await web.http.get(path, params={"limit": 3})).json()
    assert [line["text"] for line in first["segments"]] == ["line 0", "line 1", "line 2"]
    assert (first["hasMore"], first["status"]) == (True, "ACTIVE")
    rest = (await web.http.get(path, params={"after": first["nextAfter"]})).json()
    assert [line["text"] for line in rest["segments"]] == ["line 3", "line 4"]
    await stored(database_url, slug, segment(slug, 1, rev=2, text="line one"))
    news = (await web.http.get(path, params={"after": rest["nextAfter"]})).json()
    assert [(line["utteranceId"], line["text"]) for line in news["segments"]] == [
        ("u1", "line one")
    ]
    participant = await web.http.get(f"/api/sessions/{slug}/participants/guest-ann")
    assert participant.json()["name"] == "Ann"
    assert participant.json()["role"] == "GUEST"


async def test_an_unchanged_transcript_is_not_sent_twice(web: Running, database_url: str) -> None:
    slug = await created(web)
    await stored(database_url, slug, *(segment(slug, n) for n in range(30)))
    path = f"/api/sessions/{slug}/transcript"
    first = await web.http.get(path, headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    again = await web.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_deleting_closes_the_room_and_hides_everything(
    database_url: str, livekit_server: LiveKitServer
) -> None:
    settings = settings_of(database_url, LIVEKIT_URL=livekit_server.url)
    async with serving(settings) as web:
        slug = await created(web, title="Secret")
        lkapi = api.LiveKitAPI(
            livekit_server.http_url, livekit_server.api_key, livekit_server.api_secret
        )
        await lkapi.room.create_room(api.CreateRoomRequest(name=slug))
        answer = await web.http.delete(f"/api/sessions/{slug}")
        assert answer.json() == {"success": True}
        rooms = await lkapi.room.list_rooms(api.ListRoomsRequest(names=[slug]))
        await lkapi.aclose()
        assert not rooms.rooms
        assert (await web.http.get(f"/api/sessions/{slug}")).status_code == 404
        await stored(database_url, slug, segment(slug, 1))
        assert (await web.http.get(f"/api/sessions/{slug}")).status_code == 404
        assert (await web.http.delete(f"/api/sessions/{slug}")).status_code == 404


async def test_health_says_what_is_up(web: Running) -> None:
    health = (await web.http.get("/health")).json()
    assert health["parts"]["database"]["state"] == "up"
    assert health["parts"]["livekit"]["state"] == "down"
    assert health["status"] == "degraded"
    assert (await web.http.get("/health/live")).json() == {"status": "ok"}
    assert (await web.http.get("/health/ready")).status_code == 200


async def test_the_front_page_says_what_runs_under_a_strict_policy(web: Running) -> None:
    page = await web.http.get("/")
    assert "Roomscribe" in page.text
    policy = page.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "connect-src 'self' ws://127.0.0.1:9" in policy
    assert (await web.http.get("/docs")).status_code == 200
    assert (await web.http.get("/api/openapi.json")).json()["openapi"] == "3.1.0"
