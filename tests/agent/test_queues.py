"""Queues at their bound: what gives way is counted, and nobody waits (docs/queues.md)."""

from pathlib import Path

from livekit import rtc

from agent.room_events import QUEUE, Reconnecting, RoomEvents
from agent.settings import Settings
from agent.store_link import _QUEUE, StoreLink


async def test_events_beyond_the_bound_are_told_as_an_overflow() -> None:
    """The reader then compares with the room itself, so that nothing is missed for good."""
    room = rtc.Room()
    events = RoomEvents(room)
    for _ in range(QUEUE):
        room.emit("reconnecting")
    assert not events.overflowed
    room.emit("reconnected")
    assert events.overflowed
    taken = [await events.next(0.1) for _ in range(QUEUE + 1)]
    assert taken == [Reconnecting()] * QUEUE + [None]
    events.close()


async def test_live_messages_wait_for_the_bus_up_to_the_bound(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {
            "LIVEKIT_URL": "ws://127.0.0.1:1",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": "secret",
            "GLADIA_API_KEY": "key",
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "ROOMSCRIBE_DATA_DIR": str(tmp_path),
        }
    )
    link = StoreLink(settings)
    for number in range(_QUEUE + 7):
        link.publish("room", str(number).encode())
    assert link.dropped == 7
    assert link._waiting[0] == ("room", b"7")
