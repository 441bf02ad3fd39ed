"""What the worker's main process hears on the bus."""

import asyncio
from pathlib import Path

from agent.settings import Settings
from agent.store_link import StoreLink
from core.wire import WAKE
from db.bus import PostgresBus
from db.embedded import EmbeddedConfig
from db.pool import DatabaseSettings, open_database


async def test_a_wake_up_on_the_bus_reaches_the_worker(database_url: str, tmp_path: Path) -> None:
    settings = Settings.from_env(
        {
            "LIVEKIT_URL": "ws://127.0.0.1:1",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": "secret",
            "GLADIA_API_KEY": "key",
            "DATABASE_URL": database_url,
            "ROOMSCRIBE_DATA_DIR": str(tmp_path),
        }
    )
    woken = asyncio.Event()
    link = StoreLink(settings, on_wake=woken.set, count=lambda _name, _value: None)
    theirs = DatabaseSettings(
        url=database_url, application="web", embedded=EmbeddedConfig(home=tmp_path)
    )
    async with open_database(theirs) as database, asyncio.TaskGroup() as tasks:
        bus = PostgresBus(database)
        running = [tasks.create_task(link.run()), tasks.create_task(bus.run())]
        while not woken.is_set():
            await bus.publish([("room", b'{"type":"status"}'), ("room", WAKE)])
            await asyncio.sleep(0.05)
        for task in running:
            task.cancel()
