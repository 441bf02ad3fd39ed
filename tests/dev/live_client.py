"""A small client of the live API, as the tests of the stand-in need one."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from dev.gladia import GladiaStandIn

Message = dict[str, Any]
CHUNK_BYTES = 3200


class Client:
    """One account's view of the stand-in."""

    def __init__(self, standin: GladiaStandIn, http: aiohttp.ClientSession) -> None:
        self.standin = standin
        self.http = http
        self.headers = {"x-gladia-key": standin.api_key}
        self._sockets: list[Socket] = []

    @property
    def url(self) -> str:
        return f"{self.standin.base_url}/v2/live"

    async def post(self, body: object = None, **query: str) -> tuple[int, Message]:
        body = {} if body is None else body
        async with self.http.post(
            self.url, json=body, headers=self.headers, params=query
        ) as response:
            return response.status, await response.json()

    async def get(self, path: str = "") -> tuple[int, Message]:
        async with self.http.get(f"{self.url}{path}", headers=self.headers) as response:
            return response.status, await response.json()

    async def open(self, body: object = None) -> "Socket":
        status, answer = await self.post(MEETING if body is None else body)
        assert status == 201, answer
        return await self.connect(answer["url"])

    async def connect(self, url: str) -> "Socket":
        timeout = aiohttp.ClientWSTimeout(ws_close=0.2)
        socket = Socket(url, await self.http.ws_connect(url, timeout=timeout))
        self._sockets.append(socket)
        return socket

    async def aclose(self) -> None:
        for socket in self._sockets:
            await socket.ws.close()


MEETING = {
    "endpointing": 0.3,
    "maximum_duration_without_endpointing": 15,
    "messages_config": {"receive_partial_transcripts": True},
}


class Socket:
    """One open socket; keeps every message it has read."""

    def __init__(self, url: str, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.url = url
        self.ws = ws
        self.messages: list[Message] = []
        self.acked = 0
        """End of the last acknowledged byte range."""

    async def send(self, pcm: bytes, chunk_bytes: int = CHUNK_BYTES) -> None:
        for start in range(0, len(pcm), chunk_bytes):
            await self.ws.send_bytes(pcm[start : start + chunk_bytes])

    async def stop(self) -> list[Message]:
        """Ends the recording and returns everything up to the close."""
        await self.ws.send_str('{"type":"stop_recording"}')
        return await self.drain()

    async def read(self) -> Message | None:
        """The next message, None once the socket is closed."""
        raw = await self.ws.receive(timeout=10)
        if raw.type is not aiohttp.WSMsgType.TEXT:
            return None
        message: Message = json.loads(raw.data)
        self.messages.append(message)
        if message["type"] == "audio_chunk" and message["acknowledged"]:
            self.acked = message["data"]["byte_range"][1]
        return message

    async def until(self, wanted: Callable[[Message], bool]) -> Message:
        while message := await self.read():
            if wanted(message):
                return message
        raise AssertionError(f"closed with {self.ws.close_code} before that message")

    async def until_acked(self, position: int) -> None:
        while self.acked < position:
            assert await self.read(), f"closed with {self.ws.close_code}"

    async def drain(self) -> list[Message]:
        """Reads until the socket is closed."""
        while await self.read():
            pass
        return self.messages

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    def finals(self) -> list[Message]:
        return [item["data"] for item in self.of("transcript") if item["data"]["is_final"]]

    def interims(self) -> list[Message]:
        return [item["data"] for item in self.of("transcript") if not item["data"]["is_final"]]

    def text(self) -> str:
        return "".join(final["utterance"]["text"] for final in self.finals()).strip()


Serve = Callable[..., Any]
"""`async with serve(**policy) as client`: a stand-in with that policy."""


async def until(condition: Callable[[], bool]) -> None:
    """Polls until the stand-in's state is as wanted; at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the state has no event
            await asyncio.sleep(0.005)
