"""The outer walls: rate limits, proxies, origins, headers, metrics."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web as aioweb
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ConfigError
from tests.web.lines import segment
from tests.web.service import Running, serving, settings_of
from tests.web.sockets import backlog, received, said, ticket, watching


async def test_too_many_requests_are_told_when_to_come_back(database_url: str) -> None:
    async with serving(settings_of(database_url, RATE_LIMIT_FACTOR="0.1")) as web:
        answers = [await web.http.post("/api/sessions", json={}) for _ in range(13)]
        assert [a.status_code for a in answers] == [201] * 12 + [429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json()["error"]["code"] == "rate_limited"
        assert (await web.http.get("/api/config")).status_code == 200


@pytest.mark.parametrize(("proxies", "allowed"), [("", 12), ("127.0.0.1", 24)])
async def test_only_a_trusted_proxy_says_who_is_behind_it(
    database_url: str, proxies: str, allowed: int
) -> None:
    settings = settings_of(database_url, RATE_LIMIT_FACTOR="0.1", TRUSTED_PROXIES=proxies)
    async with serving(settings) as web:
        statuses = [
            (
                await web.http.post(
                    "/api/sessions",
                    json={},
                    headers={"x-forwarded-for": f"6.6.6.6, 10.0.0.{number % 2}"},
                )
            ).status_code
            for number in range(30)
        ]
    assert statuses.count(201) == allowed


async def test_guessing_tokens_is_counted(database_url: str) -> None:
    async with serving(settings_of(database_url, RATE_LIMIT_FACTOR="0.01")) as web:
        headers = {"authorization": "Bearer nonsense"}
        statuses = [
            (await web.http.get("/api/sessions", headers=headers)).status_code for _ in range(8)
        ]
    assert statuses == [401] * 6 + [429] * 2


async def test_other_origins_are_let_in_by_name_only(database_url: str) -> None:
    origin = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with serving(settings_of(database_url)) as web:
        answer = await web.http.options("/api/sessions", headers=origin)
        assert "access-control-allow-origin" not in answer.headers
    async with serving(settings_of(database_url, CORS_ORIGINS="https://app.example")) as web:
        answer = await web.http.options("/api/sessions", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        other = await web.http.options(
            "/api/sessions", headers={**origin, "origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in other.headers


async def test_every_answer_carries_the_security_headers(database_url: str) -> None:
    settings = settings_of(database_url, PUBLIC_URL="https://rooms.example")
    async with serving(settings) as web:
        for path in ("/", "/api/config", "/nowhere", "/docs", "/api/sessions/none"):
            headers = (await web.http.get(path)).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["strict-transport-security"]
            assert "server" not in headers
        answer = await web.http.put("/api/me", json={"name": "Ann"})
    attributes = set(answer.headers["set-cookie"].split("; "))
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= attributes


@asynccontextmanager
async def _worker_metrics() -> AsyncIterator[str]:
    text = (
        "# TYPE roomscribe_audio_seconds_billed_total counter\n"
        "roomscribe_audio_seconds_billed_total 0.02\n"
        "# TYPE roomscribe_journal_records gauge\nroomscribe_journal_records 7\n"
        "# TYPE roomscribe_stt_latency_seconds_total counter\n"
        "roomscribe_stt_latency_seconds_total 3\n"
        "# TYPE roomscribe_stt_latency_count_total counter\nroomscribe_stt_latency_count_total 4\n"
        "# TYPE python_info gauge\npython_info 1\n"
    )

    async def serve(_request: aioweb.Request) -> aioweb.Response:
        return aioweb.Response(text=text)

    app = aioweb.Application()
    app.router.add_get("/metrics", serve)
    runner = aioweb.AppRunner(app)
    await runner.setup()
    await aioweb.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    await runner.cleanup()


async def test_metrics_of_all_processes_under_new_and_old_names(database_url: str) -> None:
    async with _worker_metrics() as source:
        sources = f"{source},http://127.0.0.1:9/away"
        settings = settings_of(database_url, METRICS_SOURCES=sources)
        async with serving(settings) as web:
            await _watch_one_line(web)
            text = (await web.http.get("/metrics")).text
            old = await web.http.get("/metrics", headers={"accept": "application/json"})
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["roomscribe_web_messages_sent"].samples[0].value == 1
    gathered = families["roomscribe_audio_seconds_billed"].samples[0]
    assert gathered.value == 0.02
    assert re.fullmatch(r"127\.0\.0\.1:\d+", gathered.labels["source"])
    assert "python_info" not in families
    names = old.json()
    assert names["messagesSent"] == names["ws.transcripts_sent"] == 1
    assert names["gladia.audio_bytes_sent"] == 640
    assert names["gladia.stt_latency_ms"] == 750
    assert names["queue.length"] == 7
    assert {
        "connections",
        "errors",
        "queue.length",
        "latency.request_ms",
        "gladia.transcripts_received",
        "ingest.broadcast_latency_ms",
        "ingest.ffmpeg_errors",
        "ws.broadcast_loop_ms",
        "counters",
    } <= set(names)


async def _watch_one_line(web: Running) -> None:
    slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
    async with watching(web, slug, await ticket(web, slug)) as viewer:
        await backlog(viewer)
        await said(web, segment(slug, 1))
        await received(viewer)


async def test_metrics_may_have_a_secret(database_url: str) -> None:
    async with serving(settings_of(database_url, METRICS_SECRET="scrape-me")) as web:
        assert (await web.http.get("/metrics")).status_code == 401
        headers = {"authorization": "Bearer scrape-me"}
        assert (await web.http.get("/metrics", headers=headers)).status_code == 200


def test_every_problem_of_the_settings_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as wrong:
        settings_of(
            "mysql://x",
            HOST="0.0.0.0",
            PORT="web",
            AUTH_SECRET="short",
            LIVEKIT_API_KEY="",
            OIDC_ISSUER="https://id.example",
        )
    told = "\n".join(wrong.value.problems)
    for name in ("DATABASE_URL", "HOST", "PORT", "AUTH_SECRET", "LIVEKIT_API_KEY", "OIDC_CLIENT"):
        assert name in told
    with pytest.raises(ConfigError, match="AUTH_SECRET is not set"):
        settings_of("postgresql://x/y", AUTH_MODE="closed", AUTH_SECRET="")
