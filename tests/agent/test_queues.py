"""Queues at their bound: what gives way is counted, and nobody waits (docs/queues.md)."""

from livekit import rtc

from agent.live_way import _QUEUE, LiveWay
from agent.room_events import QUEUE, Reconnecting, RoomEvents


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


async def test_live_messages_wait_for_the_bus_up_to_the_bound() -> None:
    way = LiveWay()
    for number in range(_QUEUE + 7):
        way.publish("room", str(number).encode())
    assert way.dropped == 7
    assert way._waiting[0] == ("room", b"7")
