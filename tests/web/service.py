"""The web service of a test: uvicorn on a free port, in the test's own loop."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt

from web.service import Engines, Service, open_service
from web.settings import WebSettings

KEY = "testkey"
LIVEKIT_SECRET = "testsecret-testsecret-testsecret!"
SECRET = "an-auth-secret-of-more-than-32-characters"
SERVICE_SECRET = "a-service-secret-for-the-ingest-process"


_TLS = ssl.create_default_context()
"""Made once: it takes longer than a request."""


@dataclass(slots=True)
class Running:
    """A service that answers on `url`."""

    service: Service
    url: str
    http: httpx.AsyncClient

    @property
    def ws_url(self) -> str:
        return self.url.replace("http://", "ws://")

    def client(self, bearer: str | None = None) -> httpx.AsyncClient:
        """A client with a cookie jar of its own; close it."""
        headers = {"authorization": f"Bearer {bearer}"} if bearer is not None else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10, verify=_TLS)


def settings_of(database_url: str, **variables: str) -> WebSettings:
    """Settings of an open service, or of whatever `variables` make of it."""
    environ = {
        "PORT": "0",
        "DATABASE_URL": database_url,
        "LIVEKIT_URL": "ws://127.0.0.1:9",
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": LIVEKIT_SECRET,
        "AUTH_SECRET": SECRET,
        "SERVICE_SECRET": SERVICE_SECRET,
        "RATE_LIMIT_FACTOR": "0",
    }
    return WebSettings.from_env(environ | variables)


@asynccontextmanager
async def serving(settings: WebSettings, engines: Engines | None = None) -> AsyncIterator[Running]:
    """Serves until the block ends."""
    async with (
        open_service(settings, lambda *_: engines or Engines()) as service,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(service.run(), name="test:web")
        async with asyncio.timeout(10):
            await service.server.is_up.wait()
        url = f"http://127.0.0.1:{service.server.port}"
        async with httpx.AsyncClient(base_url=url, timeout=10, verify=_TLS) as http:
            yield Running(service, url, http)
        service.stop()


def bearer(
    subject: str,
    *,
    spaces: tuple[str, ...] = (),
    name: str = "",
    secret: str = SECRET,
    audience: str = "roomscribe",
    algorithm: str = "HS256",
    ttl_s: float = 600,
    **claims: Any,
) -> str:
    """A host product's token for one of its users."""
    payload = {
        "sub": subject,
        "name": name or subject.title(),
        "spaces": list(spaces),
        "aud": audience,
        "exp": datetime.now(UTC) + timedelta(seconds=ttl_s),
        **claims,
    }
    return jwt.encode(payload, "" if algorithm == "none" else secret, algorithm=algorithm)
