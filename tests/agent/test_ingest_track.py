"""The track endpoint under the real web server, against a client that follows Egress's source."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette

from agent.ingest.track import TrackEndpoint

STEREO_10_MS = np.arange(960, dtype=np.int16).tobytes()


class Sink:
    def __init__(self) -> None:
        self.pcm = bytearray()
        self.ended = asyncio.Event()

    def feed(self, pcm: bytes) -> None:
        self.pcm += pcm

    def end(self) -> None:
        self.ended.set()


class Gate:
    def __init__(self) -> None:
        self.sinks: dict[tuple[str, str], list[Sink]] = {}
        self.asked: list[tuple[str, str, str]] = []

    async def authorize_track(self, slug: str, track_sid: str, token: str) -> bool:
        self.asked.append((slug, track_sid, token))
        return token == "right"

    def open_track(self, slug: str, track_sid: str) -> Sink:
        self.sinks.setdefault((slug, track_sid), []).append(Sink())
        return self.sinks[slug, track_sid][-1]


@asynccontextmanager
async def served(
    *, idle_s: float = 10.0
) -> AsyncIterator[tuple[str, TrackEndpoint, Gate, aiohttp.ClientSession]]:
    gate = Gate()
    endpoint = TrackEndpoint(gate, idle_s=idle_s)
    config = uvicorn.Config(
        Starlette(routes=[endpoint.route()]),
        port=0,
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_ping_timeout=None,
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as http:
        tasks.create_task(server._serve(), name="server")
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        number = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"ws://127.0.0.1:{number}/egress/audio", endpoint, gate, http
        finally:
            server.should_exit = True


async def test_the_audio_of_a_track_arrives_whole_and_egress_may_say_what_it_says() -> None:
    async with served() as (url, endpoint, gate, http):
        headers = {"Content-Type": "audio/x-raw", "User-Agent": "Go-http-client/1.1"}
        address = f"{url}/XkAG/TR_a?token=right"
        async with http.ws_connect(address, headers=headers, compress=0) as socket:
            assert socket.protocol is None
            for number in range(100):
                await socket.send_bytes(STEREO_10_MS)
                if number % 10 == 0:
                    await socket.send_str('{"muted":true}')
                    await socket.send_str("not json")
                    await socket.ping(b"ping")
                    await socket.pong(b"pong")
            await socket.send_bytes(b"odd")
        sink = gate.sinks["XkAG", "TR_a"][0]
        async with asyncio.timeout(5):
            await sink.ended.wait()
        assert bytes(sink.pcm) == STEREO_10_MS * 100 + b"odd"
        assert endpoint.closed["done"] == 1
        assert gate.asked == [("XkAG", "TR_a", "right")]


@pytest.mark.parametrize("address", ["XkAG/TR_a?token=wrong", "XkAG/TR_a"])
async def test_a_wrong_key_is_refused_before_the_upgrade(address: str) -> None:
    async with served() as (url, endpoint, gate, http):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{url}/{address}")
        assert refused.value.status == 403
        assert gate.sinks == {}
        assert endpoint.closed["refused"] == 1


async def test_one_live_connection_for_each_track() -> None:
    async with served() as (url, _, gate, http):
        async with http.ws_connect(f"{url}/XkAG/TR_a?token=right") as first:
            await first.send_bytes(STEREO_10_MS)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await http.ws_connect(f"{url}/XkAG/TR_a?token=right")
            async with http.ws_connect(f"{url}/XkAG/TR_b?token=right"):
                assert len(gate.sinks) == 2
        async with asyncio.timeout(5):
            await gate.sinks["XkAG", "TR_a"][0].ended.wait()
        async with http.ws_connect(f"{url}/XkAG/TR_a?token=right"):
            assert len(gate.sinks["XkAG", "TR_a"]) == 2


async def test_a_connection_without_audio_is_closed() -> None:
    async with served(idle_s=0.3) as (url, endpoint, gate, http):
        async with http.ws_connect(f"{url}/XkAG/TR_a?token=right") as socket:
            await socket.send_str('{"muted":true}')
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        assert gate.sinks["XkAG", "TR_a"][0].ended.is_set()
        assert endpoint.closed["idle"] == 1


async def test_a_revoked_session_loses_its_tracks() -> None:
    async with served() as (url, endpoint, gate, http):
        async with http.ws_connect(f"{url}/XkAG/TR_a?token=right") as socket:
            await socket.send_bytes(STEREO_10_MS)
            await endpoint.evict("other")
            await endpoint.evict("XkAG")
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        async with asyncio.timeout(5):
            await gate.sinks["XkAG", "TR_a"][0].ended.wait()


async def test_several_tracks_of_a_room_at_once() -> None:
    async with served() as (url, _, gate, http), asyncio.TaskGroup() as group:

        async def speak(track: int) -> None:
            async with http.ws_connect(f"{url}/XkAG/TR_{track}?token=right") as socket:
                for _ in range(50):
                    await socket.send_bytes(bytes([track]) * 1920)

        for track in range(6):
            group.create_task(speak(track), name=f"track:{track}")
    for track in range(6):
        assert bytes(gate.sinks["XkAG", f"TR_{track}"][0].pcm) == bytes([track]) * 1920 * 50
