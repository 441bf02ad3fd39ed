"""A stand-in for LiveKit's Egress service, where the real one (Chrome, redis) cannot run.

`python -m dev.egress`: beside the server of LIVEKIT_URL, until SIGTERM.

Speaks the server's own Egress API (Twirp, protobuf, the server's tokens) and passes every other
call on to a real LiveKit server, so that clients see one server. An egress of its is a real
participant of the room, kind EGRESS: the mix goes out by a real RTMP publisher (ffmpeg), a track
by WebSocket to the letter of livekit/egress (pkg/pipeline/sink/websocket.go).
"""

import argparse
import asyncio
import logging
import os
import secrets
import shutil
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import aiohttp
import numpy as np
import numpy.typing as npt
from aiohttp import web
from livekit import api, rtc

from agent.supervise import contain

logger = logging.getLogger(__name__)

RATE_HZ: Final = 48_000
TICK_S: Final = 0.01
TICK_SAMPLES: Final = int(RATE_HZ * TICK_S)
RECONNECT_S: Final = 30.0
PROTOBUF: Final = "application/protobuf"
_MAX_BUFFER_BYTES: Final = 2 * RATE_HZ
_JITTER_BYTES: Final = 2 * RATE_HZ // 5
"""200 ms are gathered before a track is played."""
_ENCODER: Final = (
    *("-nostdin", "-loglevel", "error", "-f", "s16le", "-ar", str(RATE_HZ), "-ac", "1"),
    *("-i", "pipe:0", "-c:a", "aac", "-ar", "16000", "-ac", "2", "-b:a", "48k"),
    *("-flush_packets", "1", "-f", "flv"),
)
_STATUS: Final = api.EgressStatus
Pcm = npt.NDArray[np.int16]


class Ear:
    """What one participant hears: everybody mixed, or one track; mono at 48 kHz."""

    def __init__(self, tasks: asyncio.TaskGroup, only_track: str | None) -> None:
        self.room = rtc.Room()
        self._tasks = tasks
        self._only = only_track
        self._buffers: dict[str, bytearray] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._filling: set[str] = set()
        """Tracks whose buffer ran empty; they wait until it is filled again."""
        self.room.on("track_subscribed", self._subscribed)
        self.room.on("track_unsubscribed", self._unsubscribed)

    def take(self) -> Pcm:
        """The next 10 ms of everybody; silence where nobody sent enough."""
        mix = np.zeros(TICK_SAMPLES, np.int32)
        for sid, buffer in self._buffers.items():
            if len(buffer) < 2 * TICK_SAMPLES:
                self._filling.add(sid)
            if sid in self._filling and len(buffer) < _JITTER_BYTES:
                continue
            self._filling.discard(sid)
            mix += np.frombuffer(bytes(buffer[: 2 * TICK_SAMPLES]), np.int16)
            del buffer[: 2 * TICK_SAMPLES]
        return np.clip(mix, -32768, 32767).astype(np.int16)

    async def close(self) -> None:
        for reader in self._readers.values():
            reader.cancel()
        await self.room.disconnect()

    def _subscribed(self, track: rtc.Track, *_: object) -> None:
        if isinstance(track, rtc.RemoteAudioTrack) and self._only in {None, track.sid}:
            self._buffers[track.sid] = bytearray()
            listening = self._listen(track)
            self._readers[track.sid] = self._tasks.create_task(listening, name=f"ear:{track.sid}")

    def _unsubscribed(self, track: rtc.Track, *_: object) -> None:
        self._buffers.pop(track.sid, None)
        reader = self._readers.pop(track.sid, None)
        if reader is not None:
            reader.cancel()

    async def _listen(self, track: rtc.RemoteAudioTrack) -> None:
        stream = rtc.AudioStream.from_track(track=track, sample_rate=RATE_HZ, num_channels=1)
        try:
            async for event in stream:
                buffer = self._buffers.get(track.sid)
                if buffer is None:
                    return
                buffer += bytes(event.frame.data)
                del buffer[: max(0, len(buffer) - _MAX_BUFFER_BYTES)]
        finally:
            await stream.aclose()


async def ticks() -> AsyncIterator[None]:
    """One for every 10 ms of real time; late ones come at once."""
    began, count = time.monotonic(), 0
    while True:
        delay_s = began + count * TICK_S - time.monotonic()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        count += 1
        yield


async def send_mix(ear: Ear, url: str) -> str:
    """Publishes the mix by RTMP until it is refused for 30 s; says why it ended."""
    encoder: Process | None = None
    failing_since: float | None = None
    binary = shutil.which("ffmpeg")
    assert binary is not None, "ffmpeg is not installed: apt-get install ffmpeg"
    try:
        async for _ in ticks():
            pcm = ear.take().tobytes()
            if encoder is None or encoder.returncode is not None:
                now = time.monotonic()
                if encoder is not None:
                    failing_since = failing_since or now
                    if now - failing_since > RECONNECT_S:
                        return "Connection error"
                    await asyncio.sleep(0.2)
                encoder = await asyncio.create_subprocess_exec(binary, *_ENCODER, url, stdin=PIPE)
            assert encoder.stdin is not None
            with suppress(OSError):
                encoder.stdin.write(pcm)
                async with asyncio.timeout(5):
                    await encoder.stdin.drain()
        raise AssertionError("ticks never end")
    finally:
        await _hang_up(encoder)


async def _hang_up(encoder: Process | None) -> None:
    """Lets ffmpeg say goodbye."""
    if encoder is None or encoder.stdin is None:
        return
    encoder.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            await encoder.wait()
    if encoder.returncode is None:
        encoder.kill()
        await encoder.wait()
    with suppress(OSError):
        await encoder.stdin.wait_closed()


async def send_track(ear: Ear, url: str, http: aiohttp.ClientSession) -> str:
    """Sends one track as s16le 48 kHz stereo, 10 ms a message, until the peer closes."""
    headers = {"Content-Type": "audio/x-raw", "User-Agent": "Go-http-client/1.1"}
    try:
        socket = await http.ws_connect(url, headers=headers, autoping=False, compress=0)
    except aiohttp.ClientError:
        return "websocket: bad handshake"
    try:
        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(_answer_pings(socket), name="pings")
            async for _ in ticks():
                if socket.closed:
                    return "websocket: close sent"
                stereo = np.repeat(ear.take(), 2)
                try:
                    await socket.send_bytes(stereo.tobytes())
                except (OSError, aiohttp.ClientError):
                    answering.cancel()
                    return "websocket: close sent"
        raise AssertionError("ticks never end")
    finally:
        await socket.close()


async def _answer_pings(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Answers with a payload of its own, as Egress does, whatever was asked."""
    async for message in socket:
        if message.type is aiohttp.WSMsgType.PING:
            await socket.pong(b"pong")


class EgressServer:
    """The service with its HTTP front; made by `open_egress`.

    Attributes:
        url: what clients take for the LiveKit server.
        unavailable: answer starts like a server without an egress service.
        unauthorized: answer everything as to a wrong key.
        wedged: egresses that are started count as active and send nothing.
        late: a start is carried out, but its answer never comes.
    """

    def __init__(self, livekit_url: str, key: str, secret: str, tasks: asyncio.TaskGroup) -> None:
        self.url = ""
        self.unavailable = self.unauthorized = self.wedged = self.late = False
        self.infos: dict[str, api.EgressInfo] = {}
        self.calls: list[str] = []
        self._livekit = livekit_url.replace("ws", "http", 1)
        self._key, self._secret = key, secret
        self._tasks = tasks
        self._runs: dict[str, asyncio.Task[None]] = {}
        self.http: aiohttp.ClientSession

    def active(self) -> list[api.EgressInfo]:
        return [one for one in self.infos.values() if one.status == _STATUS.EGRESS_ACTIVE]

    async def handle(self, request: web.Request) -> web.Response:
        """One Twirp call."""
        service, method = request.match_info["service"], request.match_info["method"]
        body = await request.read()
        if service != "livekit.Egress":
            return await self._pass_on(request, body)
        self.calls.append(method)
        if self.unauthorized or not self._may_record(request):
            return _refused(401, "unauthenticated", "permissions denied")
        return await self._called(method, body)

    async def _called(self, method: str, body: bytes) -> web.Response:
        match method:
            case "StartRoomCompositeEgress":
                mix = api.RoomCompositeEgressRequest.FromString(body)
                return await self._start(
                    api.EgressInfo(room_name=mix.room_name, room_composite=mix)
                )
            case "StartTrackEgress":
                track = api.TrackEgressRequest.FromString(body)
                return await self._start(api.EgressInfo(room_name=track.room_name, track=track))
            case "StopEgress":
                return self._stop(api.StopEgressRequest.FromString(body).egress_id)
            case "ListEgress":
                return self._list(api.ListEgressRequest.FromString(body))
            case _:
                return _refused(404, "bad_route", "no such method")

    def kill(self, egress_id: str) -> None:
        """The egress process dies: failed, without a goodbye to LiveKit's list."""
        self._runs[egress_id].cancel()
        self.infos[egress_id].status = _STATUS.EGRESS_FAILED

    async def _start(self, info: api.EgressInfo) -> web.Response:
        if self.unavailable:
            return _refused(503, "unavailable", "no response from servers")
        info.egress_id = f"EG_{secrets.token_hex(6)}"
        info.status = _STATUS.EGRESS_ACTIVE
        self.infos[info.egress_id] = info
        job = partial(self._run, info)
        running = self._tasks.create_task(contain("egress", job), name=f"egress:{info.egress_id}")
        self._runs[info.egress_id] = running
        if self.late:
            return _refused(503, "unavailable", "no response from servers")
        return _answer(info)

    async def _run(self, info: api.EgressInfo) -> None:
        if self.wedged:
            await asyncio.Event().wait()
        only = info.track.track_id if info.HasField("track") else None
        try:
            async with asyncio.TaskGroup() as tasks:
                ear = Ear(tasks, only)
                await ear.room.connect(self._livekit.replace("http", "ws", 1), self._token(info))
                try:
                    if only is None:
                        info.error = await send_mix(
                            ear, info.room_composite.stream_outputs[0].urls[0]
                        )
                    else:
                        info.error = await send_track(ear, info.track.websocket_url, self.http)
                finally:
                    await ear.close()
        finally:
            if info.status == _STATUS.EGRESS_ACTIVE:
                info.status = _STATUS.EGRESS_FAILED if info.error else _STATUS.EGRESS_COMPLETE

    def _stop(self, egress_id: str) -> web.Response:
        info = self.infos.get(egress_id)
        if info is None:
            return _refused(404, "not_found", "egress does not exist")
        self._runs[egress_id].cancel()
        info.status = _STATUS.EGRESS_COMPLETE
        return _answer(info)

    def _list(self, request: api.ListEgressRequest) -> web.Response:
        items = [
            info
            for info in self.infos.values()
            if request.room_name in {"", info.room_name}
            and (not request.active or info.status == _STATUS.EGRESS_ACTIVE)
        ]
        return _answer(api.ListEgressResponse(items=[_redacted(one) for one in items]))

    def _may_record(self, request: web.Request) -> bool:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            claims = api.TokenVerifier(self._key, self._secret).verify(token)
        except Exception as error:  # noqa: BLE001 - any broken token is refused alike
            logger.debug("token refused", extra={"error": type(error).__name__})
            return False
        return claims.video is not None and bool(claims.video.room_record)

    def _token(self, info: api.EgressInfo) -> str:
        grants = api.VideoGrants(
            room=info.room_name,
            room_join=True,
            can_publish=False,
            can_publish_data=False,
            hidden=True,
            recorder=True,
        )
        token = api.AccessToken(self._key, self._secret).with_identity(info.egress_id)
        return token.with_kind("egress").with_grants(grants).to_jwt()

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type")}
        url = f"{self._livekit}{request.path}"
        async with self.http.post(url, data=body, headers=headers) as answer:
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )

    def stop_all(self) -> None:
        for run in self._runs.values():
            run.cancel()


def _redacted(info: api.EgressInfo) -> api.EgressInfo:
    """LiveKit hides the stream key in lists."""
    shown = api.EgressInfo()
    shown.CopyFrom(info)
    if shown.HasField("room_composite"):
        output = shown.room_composite.stream_outputs[0]
        output.urls[0] = output.urls[0].rpartition("/")[0] + "/{k1?...abc}"
    return shown


def _answer(message: api.EgressInfo | api.ListEgressResponse) -> web.Response:
    return web.Response(body=message.SerializeToString(), content_type=PROTOBUF)


def _refused(status: int, code: str, text: str) -> web.Response:
    return web.json_response({"code": code, "msg": text}, status=status)


@asynccontextmanager
async def open_egress(
    livekit_url: str, key: str, secret: str, port: int = 0
) -> AsyncIterator[EgressServer]:
    """The service on a port of loopback, by default a free one, for the block."""
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        server = EgressServer(livekit_url, key, secret, tasks)
        server.http = http
        app = web.Application()
        app.router.add_post("/twirp/{service}/{method}", server.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        try:
            yield server
        finally:
            server.stop_all()
            await runner.cleanup()


async def serve(port: int) -> None:
    """Serves beside the LiveKit server that the environment names, until SIGTERM or SIGINT."""
    environ = os.environ  # noqa: TID251 - composition root
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    key, secret = environ["LIVEKIT_API_KEY"], environ["LIVEKIT_API_SECRET"]
    async with open_egress(environ["LIVEKIT_URL"], key, secret, port) as server:
        print(f"egress stand-in at {server.url}", flush=True)
        await over.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.egress", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port of loopback; 0: any free one")
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
