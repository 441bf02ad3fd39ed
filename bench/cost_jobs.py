"""The two neighbours that our job is compared with, each as a real job process.

`python -m bench.cost_jobs receive|stream|session ROOM...` runs one job per room until SIGTERM:

- receive: subscribes to every microphone and does nothing else. libwebrtc receives, decrypts and
  feeds its jitter buffer; no frame is handed to Python.
- stream: receive, and reads each microphone as 16 kHz mono frames of 100 ms, then drops them.
- session: the arrangement of LiveKit's multi-user transcription example, one AgentSession per
  participant, with livekit-plugins-gladia.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

os.environ.setdefault("LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE", "0")
os.environ.setdefault("LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS", "0")

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    AutoSubscribe,
    JobContext,
    JobExecutorType,
    room_io,
)
from livekit.plugins import gladia
from livekit.plugins.gladia import stt as gladia_stt
from livekit.protocol import models

_TASKS: Final[set[asyncio.Task[None]]] = set()


def _start(work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


async def receive(ctx: JobContext) -> None:
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)


async def stream(ctx: JobContext) -> None:
    async def read(track: rtc.RemoteTrack) -> None:
        frames = rtc.AudioStream.from_track(
            track=track, sample_rate=16000, num_channels=1, frame_size_ms=100
        )
        async for _ in frames:
            pass

    def subscribed(track: rtc.RemoteTrack, *_: object) -> None:
        _start(read(track))

    ctx.room.on("track_subscribed", subscribed)
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)


_plugins_config: Final = gladia_stt._build_streaming_config  # noqa: SLF001 - see below


def _accepted_config(opts: gladia_stt.STTOptions) -> dict[str, Any]:
    """The plugin's request without the field that Gladia's OpenAPI does not know.

    The stand-in refuses it as documented, and the session would never start.
    """
    config: dict[str, Any] = _plugins_config(opts)
    config["realtime_processing"].pop("words_accurate_timestamps", None)
    return config


gladia_stt._build_streaming_config = _accepted_config  # noqa: SLF001 - as above


class Transcriber(Agent):
    """Listens, and never answers."""

    def __init__(self) -> None:
        stt = gladia.STT(
            api_key=os.environ["GLADIA_API_KEY"],
            base_url=os.environ["GLADIA_API_URL"] + "/v2/live",
            languages=["en"],
            code_switching=False,
            endpointing=0.3,
        )
        super().__init__(instructions="not needed", stt=stt)


async def session(ctx: JobContext) -> None:
    async def listen(participant: rtc.RemoteParticipant) -> None:
        await AgentSession().start(
            agent=Transcriber(),
            room=ctx.room,
            room_options=room_io.RoomOptions(
                audio_input=True,
                text_output=True,
                audio_output=False,
                participant_identity=participant.identity,
                text_input=False,
            ),
        )

    def joined(participant: rtc.RemoteParticipant) -> None:
        _start(listen(participant))

    ctx.room.on("participant_connected", joined)
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)
    for participant in ctx.room.remote_participants.values():
        if participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD:
            joined(participant)


ENTRIES: Final = {"receive": receive, "stream": stream, "session": session}


async def _serve(kind: str, rooms: list[str]) -> None:
    server = AgentServer(
        job_executor_type=JobExecutorType.PROCESS, num_idle_processes=0, host="127.0.0.1", port=0
    )
    server.rtc_session(ENTRIES[kind])
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    async def launch() -> None:
        for number, room in enumerate(rooms):
            await server.simulate_job(
                room,
                room_info=models.Room(sid=f"RM_{number}", name=room),
                agent_identity=f"agent-{kind}-{number}",
            )
        print("launched", flush=True)
        await stopped.wait()
        await server.aclose()

    server.on("worker_started", lambda: _start(launch()))
    await server.run(devmode=True, unregistered=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2:]))
