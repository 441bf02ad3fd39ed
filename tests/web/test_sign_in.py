"""Signing in: a real OpenID Connect provider, a host product's tokens by secret and by JWKS."""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import jwt
import pytest
from aiohttp import web as aioweb
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from dev.livekit import cache_dir
from dev.processes import free_port
from tests.web.service import SECRET, Running, bearer, serving, settings_of
from web.callers import USER_COOKIE
from web.oidc import local_path

OIDC = Path(__file__).parent / "oidc"


def installed() -> Path:
    """The provider's packages, installed once into the cache directory."""
    lock = (OIDC / "package-lock.json").read_bytes()
    home = cache_dir(os.environ) / f"test-oidc-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (home / "done").exists():
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(OIDC / name, home / name)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=home, check=True)
        (home / "done").touch()
    shutil.copy(OIDC / "provider.mjs", home / "provider.mjs")
    return home


@asynccontextmanager
async def provider(port: int, redirect_uri: str) -> AsyncIterator[str]:
    issuer = f"http://127.0.0.1:{port}"
    home = await asyncio.to_thread(installed)
    process = await asyncio.create_subprocess_exec(
        "node",
        "provider.mjs",
        cwd=home,
        env={**os.environ, "ISSUER": issuer, "PORT": str(port), "REDIRECT_URI": redirect_uri},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while b"ready" not in await process.stdout.readline():
                continue
        yield issuer
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.timeout(180)
async def test_signing_in_through_a_real_provider(database_url: str) -> None:
    web_port, oidc_port = free_port(), free_port()
    base = f"http://127.0.0.1:{web_port}"
    settings = settings_of(
        database_url,
        PORT=str(web_port),
        AUTH_MODE="closed",
        OIDC_ISSUER=f"http://127.0.0.1:{oidc_port}",
        OIDC_CLIENT_ID="roomscribe",
        OIDC_CLIENT_SECRET="client-secret-of-the-tests",
    )
    async with provider(oidc_port, f"{base}/auth/callback"), serving(settings) as web:
        assert (await web.http.get("/api/config")).json()["signInUrl"] == "/auth/login"
        async with web.client() as browser:
            assert (await browser.get("/api/sessions")).status_code == 401
            answer = await _signed_in(browser, "maria", next_path="/session/abc")
            assert (answer.status_code, answer.headers["location"]) == (303, "/session/abc")
            set_cookie = next(
                value
                for value in answer.headers.get_list("set-cookie")
                if value.startswith(USER_COOKIE)
            )
            assert {"HttpOnly", "SameSite=lax"} <= set(set_cookie.split("; "))
            me = (await browser.get("/api/me")).json()
            assert (me["kind"], me["name"]) == ("user", "Maria of the tests")
            created = await browser.post("/api/sessions", json={"title": "Mine"})
            assert created.status_code == 201
            slug = created.json()["slug"]
            joined = await browser.get(f"/api/sessions/{slug}/token", params={"name": "Nobody"})
            claims = jwt.decode(joined.json()["token"], options={"verify_signature": False})
            assert claims["name"] == "Maria of the tests"
            assert claims["attributes"]["roomscribe.role"] == "host"
            await _colleagues(web, browser, slug)
            await browser.post("/api/me/sign-out")
            assert (await browser.get("/api/sessions")).status_code == 401


async def _colleagues(web: Running, maria: httpx.AsyncClient, slug: str) -> None:
    """Whoever signs in shares the default space."""
    async with web.client() as browser:
        await _signed_in(browser, "john")
        listed = (await browser.get("/api/sessions")).json()["sessions"]
        assert [entry["slug"] for entry in listed] == [slug]
        assert (await browser.get(f"/api/sessions/{slug}/transcript")).status_code == 200
    members = (await maria.get("/api/spaces/default/members")).json()["members"]
    assert {member["displayName"] for member in members} == {
        "Maria of the tests",
        "John of the tests",
    }


async def _signed_in(
    browser: httpx.AsyncClient, login: str, next_path: str = "/"
) -> httpx.Response:
    """Goes through the provider's own pages as a browser does; returns our callback's answer."""
    answer = await browser.get("/auth/login", params={"next": next_path})
    for _ in range(12):
        if answer.is_redirect:
            target = urljoin(str(answer.url), answer.headers["location"])
            answer = await browser.get(target)
            if urlsplit(target).path == "/auth/callback":
                return answer
            continue
        form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        assert form is not None, answer.text
        action = urljoin(str(answer.url), unescape(form[1]))
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert prompt is not None
        fields = {"prompt": prompt[1], "login": login, "password": "x"}
        answer = await browser.post(action, data=fields)
    pytest.fail("the provider's pages never led back")


async def test_a_forged_or_replayed_callback_signs_nobody_in(database_url: str) -> None:
    web_port, oidc_port = free_port(), free_port()
    settings = settings_of(
        database_url,
        PORT=str(web_port),
        AUTH_MODE="closed",
        OIDC_ISSUER=f"http://127.0.0.1:{oidc_port}",
        OIDC_CLIENT_ID="roomscribe",
        OIDC_CLIENT_SECRET="client-secret-of-the-tests",
    )
    redirect = f"http://127.0.0.1:{web_port}/auth/callback"
    async with serving(settings) as web:
        away = await web.http.get("/auth/login")
        assert away.json()["error"]["code"] == "sign_in_failed"
        async with provider(oidc_port, redirect):
            started = await web.http.get("/auth/login")
            query = parse_qs(urlsplit(started.headers["location"]).query)
            assert query["code_challenge_method"] == ["S256"]
            assert query["redirect_uri"] == [redirect]
            for given in ({}, {"code": "x"}, {"code": "x", "state": "y"}, {"error": "denied"}):
                answer = await web.http.get("/auth/callback", params=given)
                assert answer.status_code == 401
                assert USER_COOKIE not in answer.cookies
            stolen = {"code": "x", "state": query["state"][0]}
            assert (await web.http.get("/auth/callback", params=stolen)).status_code == 401


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("/session/a?b=1", "/session/a?b=1"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_nobody_is_sent_to_another_host(target: str, where: str) -> None:
    assert local_path(target) == where


async def test_a_host_product_may_sign_with_its_own_key(database_url: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1", "use": "sig"}

    async def jwks(_request: aioweb.Request) -> aioweb.Response:
        return aioweb.json_response({"keys": [jwk]})

    app = aioweb.Application()
    app.router.add_get("/jwks", jwks)
    runner = aioweb.AppRunner(app)
    await runner.setup()
    await aioweb.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    settings = settings_of(
        database_url, AUTH_MODE="closed", AUTH_JWKS_URL=url, AUTH_ISSUER="https://host.example"
    )
    claims = {"sub": "ann", "aud": "roomscribe", "iss": "https://host.example", "exp": 4e9}
    async with serving(settings) as web:
        good = jwt.encode({**claims, "name": "Ann"}, key, "RS256", headers={"kid": "k1"})
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        for token, kind in (
            (good, "user"),
            (jwt.encode(claims, other, "RS256", headers={"kid": "k1"}), None),
            (jwt.encode(claims, key, "RS256", headers={"kid": "k2"}), None),
            (jwt.encode({**claims, "iss": "evil"}, key, "RS256", headers={"kid": "k1"}), None),
            (bearer("ann", iss="https://host.example"), "user"),
            (bearer("ann", iss="https://host.example", secret="k" * 40), None),
            (bearer("ann"), None),
        ):
            async with web.client(token) as client:
                answer = await client.get("/api/me")
            assert answer.status_code == (200 if kind else 401)
    await runner.cleanup()


def test_the_old_name_of_the_secret_still_works(database_url: str) -> None:
    settings = settings_of(database_url, AUTH_MODE="closed", AUTH_SECRET="", NEXTAUTH_SECRET=SECRET)
    assert settings.auth_secret == SECRET
    assert SECRET not in repr(settings)
