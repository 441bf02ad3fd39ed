"""A bot in the test's own process: our real job in a real room, without worker and dispatch.

What a test must do to the bot's own connection can only be done from inside its process.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from livekit import api, rtc
from livekit.agents.testing import fake_job_context

from agent import job
from agent.bus_relay import RelayReceiver, listening
from agent.journal import Journal
from agent.settings import Settings
from agent.subscriptions import APP, APP_ATTRIBUTE, EPOCH_ATTRIBUTE
from dev.gladia import GladiaStandIn
from dev.livekit import LiveKitServer


class Bot:
    """A running job, seen from inside."""

    def __init__(self, room: rtc.Room, settings: Settings) -> None:
        self.room = room
        self.settings = settings
        self.left: list[str] = []
        """Jobs that said that their room is over."""
        self.shutdowns: list[str] = []
        """Reasons for which the job asked to be ended."""

    def records(self, kind: str) -> list[dict[str, Any]]:
        """What lies in the journal, newest version of each, oldest first."""
        journal = Journal(self.settings.journal_path)
        try:
            bodies = [json.loads(entry.body) for entry in journal.ready(1000)]
        finally:
            journal.close()
        return [body for body in bodies if body["is"] == kind]


def settings_for(server: LiveKitServer, gladia: GladiaStandIn, state_dir: Path) -> Settings:
    return Settings.from_env(
        {
            **server.env(),
            "GLADIA_API_KEY": gladia.api_key,
            "GLADIA_API_URL": gladia.base_url,
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "ROOMSCRIBE_DATA_DIR": str(state_dir),
        }
    )


def bot_token(server: LiveKitServer, room: str, identity: str, epoch: int) -> str:
    token = api.AccessToken(server.api_key, server.api_secret).with_identity(identity)
    grants = api.VideoGrants(
        room_join=True, room=room, agent=True, can_publish=False, can_publish_data=True
    )
    attributes = {APP_ATTRIBUTE: APP, EPOCH_ATTRIBUTE: str(epoch)}
    return token.with_kind("agent").with_attributes(attributes).with_grants(grants).to_jwt()


@asynccontextmanager
async def open_bot(
    server: LiveKitServer, settings: Settings, slug: str, *, identity: str = "bot", epoch: int = 1
) -> AsyncIterator[Bot]:
    """Our job in `slug`, from `entry` to `finish`."""
    relay = settings.data_dir / f"relay-{identity}"
    room = rtc.Room()
    bot = Bot(room, settings)
    receiver = RelayReceiver(
        on_message=lambda _slug, _payload: None,
        on_left=bot.left.append,
        on_heard=lambda _job, _until: None,
        on_metrics=lambda _sums: None,
    )
    async with listening(receiver, relay):
        with fake_job_context(room=room, job_id=identity) as context:
            context.job.room.name = slug
            context._on_shutdown = bot.shutdowns.append
            job.prewarm(job.Boot(settings=settings, relay=relay), context.proc)
            # The framework connects in `entry`; a fake job leaves that to the test.
            live = context.proc.userdata
            running_job = job.RoomJob(context, live[job.BOOT])
            live[job.JOB] = running_job
            await room.connect(
                server.url,
                bot_token(server, slug, identity, epoch),
                rtc.RoomOptions(auto_subscribe=False),
            )
            try:
                await running_job.start()
                yield bot
            finally:
                await job.finish(context)
                await room.disconnect()
                context._tempdir.cleanup()
