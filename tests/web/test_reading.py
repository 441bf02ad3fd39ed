"""Exports, search, talk time, insights: what is read after the words were stored."""

from typing import Any

import pytest

from core.ids import Identity, Slug
from core.recap import Recap, Statement
from tests.web.engines import Fallback, engines
from tests.web.lines import segment, stored, stored_recap
from tests.web.service import Running, bearer, serving, settings_of


async def _filled(web: Running, database_url: str, title: str = "Встреча & plan") -> str:
    slug: str = (await web.http.post("/api/sessions", json={"title": title})).json()["slug"]
    await stored(
        database_url,
        slug,
        segment(slug, 1, text="We approved the budgets for running shoes"),
        segment(slug, 2, text="Бюджеты команды утверждены", language="ru"),
        segment(slug, 3, text="Ons het die begroting goedgekeur", language="af"),
        segment(slug, 4, text="今日は予算の会議です", language="ja"),
        segment(slug, 5, text="unfinished budget", is_final=False),
    )
    return slug


@pytest.mark.parametrize(
    ("kind", "media"),
    [
        ("txt", "text/plain"),
        ("md", "text/markdown"),
        ("srt", "application/x-subrip"),
        ("vtt", "text/vtt"),
        ("json", "application/json"),
    ],
)
async def test_a_transcript_is_downloaded_under_its_title(
    web: Running, database_url: str, kind: str, media: str
) -> None:
    slug = await _filled(web, database_url)
    answer = await web.http.get(f"/api/sessions/{slug}/transcript.{kind}")
    assert answer.headers["content-type"].startswith(media)
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; filename=")
    assert "filename*=UTF-8''%D0%92" in disposition
    assert "Бюджеты команды" in answer.content.decode()
    assert "unfinished" not in answer.content.decode()
    unknown = await web.http.get(f"/api/sessions/{slug}/transcript.exe")
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("budget", ["u1"]),  # stemmed
        ("run shoe", ["u1"]),
        ("бюджет", ["u2"]),  # stemmed
        ("begroting", ["u3"]),  # literal: no stemmer
        ("begrotings", []),
        ("予算", ["u4"]),  # no words to split
        ("approved -shoes", []),
        ("утверждены OR approved", ["u2", "u1"]),
        ('"approved the budgets"', ["u1"]),
        ("'; drop table sessions; --", []),
    ],
)
async def test_what_was_said_is_found(
    web: Running, database_url: str, typed: str, found: list[str]
) -> None:
    slug = await _filled(web, database_url)
    for path in (f"/api/sessions/{slug}/search", "/api/search"):
        hits = (await web.http.get(path, params={"q": typed})).json()["hits"]
        assert [hit["segment"]["utteranceId"] for hit in hits] == found
        assert all(hit["slug"] == slug for hit in hits)
        for hit in hits:
            assert "\ue000" in hit["headline"] or hit["segment"]["language"] == "ja"


async def test_search_goes_no_further_than_ones_spaces(database_url: str) -> None:
    async with serving(settings_of(database_url, AUTH_MODE="closed")) as web:
        async with web.client(bearer("ann", spaces=("a",))) as ann:
            slug = (await ann.post("/api/sessions", json={})).json()["slug"]
            await stored(database_url, slug, segment(slug, 1, text="secret budget"))
            mine = (await ann.get("/api/search", params={"q": "budget"})).json()
            assert len(mine["hits"]) == 1
        async with web.client(bearer("bob", spaces=("b",))) as bob:
            for query in ({"q": "budget"}, {"q": "budget", "spaceId": "a"}):
                assert (await bob.get("/api/search", params=query)).json()["hits"] == []


async def test_found_segments_are_paged(web: Running, database_url: str) -> None:
    slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
    await stored(database_url, slug, *(segment(slug, n, text=f"budget {n}") for n in range(5)))
    seen: list[str] = []
    query: dict[str, Any] = {"q": "budget", "limit": 2}
    while True:
        page = (await web.http.get("/api/search", params=query)).json()
        seen += [hit["segment"]["text"] for hit in page["hits"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert seen == [f"budget {n}" for n in reversed(range(5))]


async def test_talk_time_and_turns(web: Running, database_url: str) -> None:
    slug = await _filled(web, database_url)
    stats = (await web.http.get(f"/api/sessions/{slug}/stats")).json()
    assert (stats["utterances"], stats["talkS"], stats["durationS"]) == (4, 16.0, 34.0)
    assert stats["speakers"][0]["identity"] == "guest-ann"
    page = await web.http.get(f"/api/sessions/{slug}/transcript", params={"grouped": "true"})
    turns = page.json()["turns"]
    assert len(turns) == 1
    assert turns[0]["utteranceIds"] == ["u1", "u2", "u3", "u4", "u5"]


async def test_engines_that_are_absent_say_so(web: Running) -> None:
    slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
    for method, path, code in (
        ("POST", f"/api/sessions/{slug}/ai/realtime-insights", "insights_unavailable"),
        ("GET", f"/api/sessions/{slug}/summary", "insights_unavailable"),
        ("POST", f"/api/sessions/{slug}/summary", "insights_unavailable"),
        ("POST", "/api/transcription/start", "fallback_unavailable"),
        ("POST", "/api/transcription/stop", "fallback_unavailable"),
    ):
        body = {"sessionSlug": slug} if "transcription" in path else {}
        answer = await web.http.request(method, path, json=body if method == "POST" else None)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == code


async def test_engines_are_asked(database_url: str) -> None:
    plugged = engines()
    assert isinstance(plugged.fallback, Fallback)
    async with serving(settings_of(database_url), plugged) as web:
        slug = (await web.http.post("/api/sessions", json={})).json()["slug"]
        fresh = await web.http.post(
            f"/api/sessions/{slug}/ai/realtime-insights", json={"transcripts": ["ignored"]}
        )
        assert fresh.json()["aiTitle"] == "Title"
        body = {"sessionSlug": slug, "mode": "composite"}
        started = await web.http.post("/api/transcription/start", json=body)
        assert started.json() == {"state": "starting", "source": "rtmp", "egressIds": ["EG_1"]}
        joined = await web.http.get(f"/api/sessions/{slug}/token", params={"name": "Ann"})
        seat = joined.json()
        async with web.client(seat["token"]) as ann:
            report = {"sessionSlug": slug, "speakers": [seat["identity"]], "at": 1_000}
            assert (await ann.post("/api/active-speaker", json=report)).json() == {"success": True}
            foreign = await ann.post("/api/active-speaker", json={**report, "sessionSlug": "x"})
            assert foreign.status_code == 403
        assert plugged.fallback.reports[0][1] == seat["identity"]
        missing = await web.http.get(f"/api/sessions/{slug}/summary")
        assert missing.json()["error"]["code"] == "no_summary"
        recap = Recap(summary=(Statement(text="All agreed", utterance_ids=("u1",)),))
        await stored_recap(database_url, slug, recap)
        summary = (await web.http.get(f"/api/sessions/{slug}/summary")).json()
        assert summary["summary"][0]["utteranceIds"] == ["u1"]
        await _check_files(web, slug)
        assert Identity(seat["identity"]).startswith(f"guest-{Slug(slug)}-")


async def _check_files(web: Running, slug: str) -> None:
    path = f"/api/sessions/{slug}/summary"
    page = await web.http.get(f"{path}.md")
    assert page.headers["content-type"].startswith("text/markdown")
    assert "filename*=UTF-8''" in page.headers["content-disposition"]
    assert f"/session/{slug}#u=u1)" in page.text
    (line,) = (await web.http.get(f"{path}.json")).json()["summary"][0]["lines"]
    assert line["utteranceId"] == "u1"
    assert line["url"].endswith(f"/session/{slug}#u=u1")
    assert (await web.http.get(f"{path}.pdf")).status_code == 404
