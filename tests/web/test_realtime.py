"""The transcription WebSocket: who gets in, what they see, and what they cannot do to others."""

import asyncio
import random
import socket as sockets
from collections.abc import Mapping

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame
from websockets.streams import StreamReader

from db import orphans
from db.embedded import EmbeddedPostgres
from tests.frozen import frozen
from tests.web.lines import segment, stored
from tests.web.service import SECRET, Running, bearer, serving, settings_of
from tests.web.sockets import PATH, backlog, received, said, ticket, until, watching
from web.socket import text_frame
from web.tokens import Signer

NO_SESSION = "01900000-0000-7000-8000-000000000000"


async def _session(web: Running) -> tuple[str, str]:
    slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
    return slug, await ticket(web, slug)


async def test_a_viewer_gets_the_backlog_and_then_what_is_said(
    web: Running, database_url: str
) -> None:
    slug, token = await _session(web)
    await stored(database_url, slug, segment(slug, 1), segment(slug, 2))
    async with watching(web, slug, token) as viewer:
        texts, end = await backlog(viewer)
        assert texts == ["line 1", "line 2"]
        assert end["complete"]
        await said(web, segment(slug, 3, is_final=False, text="li"))
        await said(web, segment(slug, 3, rev=2, text="line 3"))
        interim, final = await received(viewer), await received(viewer)
    assert (interim["text"], interim["isFinal"]) == ("li", False)
    assert (final["text"], final["isFinal"]) == ("line 3", True)
    assert final["utteranceId"] == interim["utteranceId"] == "u3"


async def test_a_line_comes_once_though_bus_and_store_both_bring_it(
    web: Running, database_url: str
) -> None:
    slug, token = await _session(web)
    async with watching(web, slug, token) as viewer:
        await backlog(viewer)
        for number in range(20):
            await said(web, segment(slug, number))
        await stored(database_url, slug, *(segment(slug, number) for number in range(20)))
        web.service.services.hub.catch_up()
        await said(web, segment(slug, 0, is_final=False, text="late interim"))
        await said(web, segment(slug, 20))
        texts = [(await received(viewer))["text"] for _ in range(21)]
    assert texts == [f"line {number}" for number in range(21)]


async def test_what_the_bus_lost_comes_from_the_store(web: Running, database_url: str) -> None:
    slug, token = await _session(web)
    async with watching(web, slug, token) as viewer:
        await backlog(viewer)
        await stored(database_url, slug, segment(slug, 7))
        web.service.services.hub.catch_up()
        assert (await received(viewer))["text"] == "line 7"


async def test_who_comes_back_gets_only_what_is_missing(web: Running, database_url: str) -> None:
    slug, token = await _session(web)
    await stored(database_url, slug, *(segment(slug, number) for number in range(5)))
    async with watching(web, slug, token) as viewer:
        _, end = await backlog(viewer)
    await stored(database_url, slug, segment(slug, 5), segment(slug, 0, rev=2, text="better"))
    await said(web, segment(slug, 6))
    web.service.services.hub.catch_up()
    async with watching(web, slug, token, after=end["nextAfter"]) as viewer:
        seen = set((await backlog(viewer))[0])
        while len(seen) < 3:
            seen.add((await received(viewer))["text"])
    assert seen == {"line 5", "line 6", "better"}


async def test_sessions_are_apart(web: Running) -> None:
    slug, token = await _session(web)
    other, other_token = await _session(web)
    async with watching(web, slug, token) as viewer, watching(web, other, other_token) as stranger:
        await backlog(viewer)
        await backlog(stranger)
        await said(web, segment(slug, 1))
        assert (await received(viewer))["text"] == "line 1"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await received(stranger)


async def test_later_viewers_see_the_newest_insight_and_status(web: Running) -> None:
    slug, token = await _session(web)
    headers = {"authorization": f"Bearer {web.service.services.settings.service_secret}"}
    async with watching(web, slug, token) as first:
        await backlog(first)
        for kind in ("insights", "status", "transcription_error"):
            body = {"type": kind, "sessionSlug": slug, "reason": "gladia_quota"}
            await web.http.post(f"{PATH}/broadcast", json=body, headers=headers)
            assert (await received(first))["type"] == kind
        async with watching(web, slug, token) as second:
            texts, _ = await backlog(second)
    assert texts == ["insights", "status"]


def _mint(slug: str, secret: str = SECRET, ttl_s: float = 60, **claims: object) -> str:
    session = {"sessionSlug": slug, "sessionId": NO_SESSION, "userId": None}
    return Signer(secret).mint("transcription", {**session, **claims}, ttl_s=ttl_s)


def _refused(slug: str) -> Mapping[str, tuple[str, int]]:
    return {
        "none": ("", 401),
        "garbage": ("garbage", 401),
        "expired": (_mint(slug, ttl_s=-60), 401),
        "wrong key": (_mint(slug, secret="x" * 40), 401),
        "wrong purpose": (Signer(SECRET).mint("guest", {"sub": "g"}, ttl_s=60), 401),
        "bearer": (bearer("hedy"), 401),
        "alg none": (bearer("hedy", algorithm="none", audience="transcription"), 401),
        "another session": (_mint("other"), 403),
        "an earlier session of that name": (_mint(slug), 404),
    }


async def test_a_refused_upgrade_is_an_http_answer(web: Running) -> None:
    slug, _ = await _session(web)
    for name, (token, status) in _refused(slug).items():
        with pytest.raises(InvalidStatus) as refused:
            async with watching(web, slug, token):
                pass
        assert refused.value.response.status_code == status, name
        assert b'"error"' in refused.value.response.body
    with pytest.raises(InvalidStatus) as unknown:
        async with connect(f"{web.ws_url}{PATH}?token=x&sessionSlug={slug}&foo=1"):
            pass
    assert unknown.value.response.status_code == 400


async def test_a_session_has_a_bound_of_viewers(database_url: str) -> None:
    async with serving(settings_of(database_url, VIEWERS_PER_SESSION="2")) as web:
        slug, token = await _session(web)
        async with watching(web, slug, token), watching(web, slug, token):
            with pytest.raises(InvalidStatus) as full:
                async with watching(web, slug, token):
                    pass
        assert full.value.response.status_code == 429
        assert full.value.response.headers["retry-after"]


async def test_deleting_a_session_ends_its_viewers(web: Running, database_url: str) -> None:
    slug, token = await _session(web)
    other = (await web.http.post("/api/sessions", json={})).json()["slug"]
    assert other != slug
    async with watching(web, slug, token) as viewer:
        await backlog(viewer)
        await _mark_deleted(database_url, slug)
        web.service.services.hub.catch_up()
        with pytest.raises(ConnectionClosed) as closed:
            await received(viewer)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4404, "session_deleted")


async def _mark_deleted(database_url: str, slug: str) -> None:
    conn = await asyncpg.connect(database_url)
    await conn.execute("update sessions set deleted_at = now() where slug = $1", slug)
    await conn.close()


async def test_a_viewer_that_floods_us_is_let_go(web: Running) -> None:
    slug, token = await _session(web)
    async with watching(web, slug, token) as viewer:
        with pytest.raises(ConnectionClosed) as closed:
            await _chatter(viewer)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def _chatter(viewer: ClientConnection) -> None:
    for _ in range(500):
        await viewer.send("hello")
        await asyncio.sleep(0)
    while True:
        await received(viewer)


async def test_a_stuck_viewer_is_dropped_with_a_reason_and_holds_nobody_up(web: Running) -> None:
    slug, token = await _session(web)
    _, writer = await _raw_viewer(web, slug, token)
    async with watching(web, slug, token) as viewer:
        await backlog(viewer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's own transport
        long_text = "word " * 2000
        for number in range(700):
            await said(web, segment(slug, number, text=f"{number} {long_text}"))
            assert (await received(viewer))["text"].startswith(f"{number} ")
    await until(lambda: web.service.services.hub.viewers == 0)
    dropped = web.service.services.counters.dropped.labels("too_slow")
    assert dropped._value.get() == 1
    writer.close()


async def _raw_viewer(
    web: Running, slug: str, token: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    host, port = web.url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
    writer.write(
        f"GET {PATH}?token={token}&sessionSlug={slug} HTTP/1.1\r\nHost: x\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=200))
def test_our_frames_are_what_a_client_reads(payload: bytes) -> None:
    for body in (payload, payload * 700):
        stream = StreamReader()
        stream.feed_data(text_frame(body))
        parser = Frame.parse(stream.read_exact, mask=False)
        with pytest.raises(StopIteration) as parsed:
            next(parser)
        assert parsed.value.value.data == body


async def test_garbage_on_the_wire_ends_only_its_own_connection(web: Running) -> None:
    slug, token = await _session(web)
    rng = random.Random(11)
    async with watching(web, slug, token) as viewer:
        await backlog(viewer)
        for round_number in range(150):
            _, writer = await _raw_viewer(web, slug, token)
            writer.write(rng.randbytes(rng.randrange(1, 400)))
            if round_number % 3 == 0:
                writer.write_eof()
            writer.close()
        await said(web, segment(slug, 1))
        assert (await received(viewer))["text"] == "line 1"
    await until(lambda: web.service.services.hub.viewers == 0)


async def test_headers_that_trickle_are_cut_off(
    web: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.server.HEADERS_WITHIN_S", 0.3)
    host, port = web.url.removeprefix("http://").split(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    for _, writer in connections[:25]:
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    for reader, _ in connections[:25]:
        await reader.readuntil(b'{"status":"ok"}')
    for _, writer in connections:
        writer.write(b"GET / HTTP/1.1\r\nHo")
    async with asyncio.timeout(5):
        for reader, writer in connections:
            assert await reader.read() == b""
            writer.close()


async def test_a_body_that_trickles_or_swells_is_refused(
    web: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.endpoint.BODY_TIMEOUT_S", 0.3)
    host, port = web.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    huge = await web.http.post("/api/sessions", content=b"x" * 20_000)
    assert huge.status_code == 413
    long = await web.http.get("/api/sessions", params={"q": "x" * 10_000})
    assert long.status_code == 414


async def test_without_the_database_reads_fail_fast_and_live_lines_go_on(
    postgres: EmbeddedPostgres, database_url: str
) -> None:
    async with serving(settings_of(database_url)) as web:
        slug, token = await _session(web)
        async with watching(web, slug, token) as viewer:
            await backlog(viewer)
            with frozen(orphans.processes(postgres.layout.data)):
                async with asyncio.timeout(2.0):
                    answer = await web.http.get(f"/api/sessions/{slug}/transcript")
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "store_unavailable"
                assert answer.headers["retry-after"]
                await said(web, segment(slug, 1))
                assert (await received(viewer))["text"] == "line 1"
                async with watching(web, slug, token) as late:
                    assert (await backlog(late))[0] == ["line 1"]
        await _answers_again(web, slug)


async def _answers_again(web: Running, slug: str) -> None:
    async with asyncio.timeout(15):
        while True:
            if (await web.http.get(f"/api/sessions/{slug}")).status_code == 200:
                return
            await asyncio.sleep(0.1)
