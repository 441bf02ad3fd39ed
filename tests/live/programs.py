"""Worker and web service as processes of a test."""

import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

from dev.processes import Child

ROOT = Path(__file__).parent.parent.parent
READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 30.0


class StartProgram(Protocol):
    """Starts a program with more variables than the usual ones; it runs when this returns."""

    def __call__(self, **variables: str) -> Coroutine[Any, Any, Child]: ...


@dataclass(frozen=True, slots=True)
class Web:
    """A running web service."""

    url: str
    child: Child
    http: httpx.AsyncClient

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def create_session(self, title: str = "Test") -> str:
        """Slug of a new session."""
        answer = await self.http.post("/api/sessions", json={"title": title})
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["slug"])

    async def join(self, slug: str, name: str) -> dict[str, str]:
        """token, roomName, identity and serverUrl for somebody new."""
        async with httpx.AsyncClient(base_url=self.url) as somebody_new:
            answer = await somebody_new.get(f"/api/sessions/{slug}/token", params={"name": name})
        assert answer.status_code == 200, answer.text
        body: dict[str, str] = answer.json()
        return body

    async def transcript(self, slug: str) -> list[dict[str, Any]]:
        """All stored segments, by time of speech."""
        page = await self.get(f"/api/sessions/{slug}/transcript?limit=1000")
        assert not page["hasMore"]
        segments: list[dict[str, Any]] = page["segments"]
        return sorted(segments, key=lambda segment: segment["startedAt"])


class Programs:
    """Starts Python programs and stops them all, newest first, and not by force if they let us."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self._children):
            code = await asyncio.to_thread(child.stop, _STOP_WITHIN_S)
            print(f"{child.name} ended with {code}\n{child.tail(150)}")  # noqa: T201 - shown if the test fails

    def start(self, name: str, arguments: list[str], env: dict[str, str]) -> Child:
        python = sys.executable
        child = Child(name, [python, "-u", *arguments], env=env, cwd=ROOT)
        self._children.append(child)
        return child


async def until_answering(http: httpx.AsyncClient, child: Child) -> None:
    async with asyncio.timeout(READY_WITHIN_S):
        while child.returncode is None:
            try:
                if (await http.get("/health/live")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    raise AssertionError(f"web ended\n{child.tail()}")
