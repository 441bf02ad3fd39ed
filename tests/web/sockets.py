"""Viewers of the tests: real WebSocket clients."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from core.transcript import Segment
from core.wire import transcript_message
from tests.web.service import SERVICE_SECRET, Running

PATH = "/api/realtime/transcribe"


async def ticket(web: Running, slug: str) -> str:
    """A transcription token."""
    answer = await web.http.get(f"/api/sessions/{slug}/transcription/token")
    token: str = answer.json()["token"]
    return token


@asynccontextmanager
async def watching(
    web: Running, slug: str, token: str, after: int | None = None, **options: Any
) -> AsyncIterator[ClientConnection]:
    """A viewer of the session."""
    url = f"{web.ws_url}{PATH}?token={token}&sessionSlug={slug}"
    if after is not None:
        url += f"&after={after}"
    async with connect(url, compression=None, **options) as socket:
        yield socket


async def received(socket: ClientConnection) -> dict[str, Any]:
    """The next message that is not a ping."""
    while True:
        message: dict[str, Any] = json.loads(await socket.recv())
        if message["type"] != "ping":
            return message


async def backlog(socket: ClientConnection) -> tuple[list[str], dict[str, Any]]:
    """The texts before the end of the backlog, and the message that ends it."""
    texts: list[str] = []
    while True:
        message = await received(socket)
        if message["type"] == "backlog":
            return texts, message
        texts.append(message.get("text", message["type"]))


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for something that happens without telling us."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)


async def said(web: Running, segment: Segment) -> None:
    """Broadcasts a line as the ingest process does."""
    message = json.loads(transcript_message(segment, datetime.now(UTC)))
    answer = await web.http.post(
        f"{PATH}/broadcast",
        json=message,
        headers={"authorization": f"Bearer {SERVICE_SECRET}"},
    )
    assert answer.status_code == 200, answer.text
