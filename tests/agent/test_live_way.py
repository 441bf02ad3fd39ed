"""Live messages go by the bus, and round it while it does not carry."""

import asyncio
from collections.abc import Sequence

from agent.live_way import LiveWay
from db.bus import Bus, Message


class Road(Bus):
    """A bus that can be blocked."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = False
        self.stuck: list[Message] = []
        self.carried: list[bytes] = []
        self.news = asyncio.Event()

    @property
    def is_flowing(self) -> bool:
        return not self.blocked

    def take_back(self) -> list[Message]:
        taken, self.stuck = self.stuck, []
        return taken

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.blocked:
            self.stuck += messages
        else:
            self.carried += [payload for _, payload in messages]
        self.news.set()

    async def run(self) -> None:
        await asyncio.Event().wait()


class Path:
    """A detour that takes everything."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.news = asyncio.Event()

    def publish(self, slug: str, payload: bytes) -> None:  # noqa: ARG002 - a protocol
        self.taken.append(payload)
        self.news.set()

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_a_blocked_bus_is_gone_round_and_used_again() -> None:
    detoured: list[int] = []
    way, road, path = LiveWay(detoured.append), Road(), Path()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(way.run(path))
        way.publish("room", b"before there is a bus")
        await path.news.wait()
        path.news.clear()
        way.bus = road
        way.publish("room", b"by bus")
        await road.news.wait()
        road.blocked, road.stuck = True, [("room", b"stuck in it")]
        way.publish("room", b"after it")
        await path.news.wait()
        road.blocked = False
        road.news.clear()
        way.publish("room", b"by bus again")
        await road.news.wait()
        running.cancel()
    assert path.taken == [b"before there is a bus", b"stuck in it", b"after it"]
    assert road.carried == [b"by bus", b"by bus again"]
    assert sum(detoured) == 3


async def test_without_a_detour_messages_wait_for_a_bus() -> None:
    way, road = LiveWay(), Road()
    async with asyncio.TaskGroup() as tasks:
        way.publish("room", b"early")
        running = tasks.create_task(way.run())
        way.bus = road
        await road.news.wait()
        running.cancel()
    assert road.carried == [b"early"]
