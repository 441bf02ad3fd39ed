"""The way of live messages from the worker to viewers outside the rooms.

By the bus; while that is away (its PostgreSQL or Redis), straight to a web service, where one is
configured. Lossy by design, like every live path: viewers catch up from the store. What arrives on
both ways is shown once, since web services know each utterance by its id and revision.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from db.bus import Bus, Message

_QUEUE: Final = 4096
_LOOK_S: Final = 0.25
"""How often the bus is looked at where there is another way."""


class Detour(Protocol):
    """Takes messages at once, and hands them on from `run`; agent.ingest.outlets has one."""

    def publish(self, slug: str, payload: bytes) -> None: ...
    async def run(self) -> None: ...


class LiveWay:
    """`publish` at any time; `run` in a task."""

    def __init__(self, on_detour: Callable[[int], None] = lambda _count: None) -> None:
        """Without a bus at first.

        Args:
            on_detour: told how many messages go round the bus.
        """
        self._on_detour = on_detour
        self._waiting: deque[Message] = deque(maxlen=_QUEUE)
        self._arrived = asyncio.Event()
        self.bus: Bus | None = None
        """None as long as there is none, or after it was closed."""
        self.dropped = 0
        """Messages that gave way."""

    def publish(self, slug: str, payload: bytes) -> None:
        """Takes a live message; the oldest that wait give way to new ones."""
        self.dropped += len(self._waiting) == _QUEUE
        self._waiting.append((slug, payload))
        self._arrived.set()

    async def run(self, detour: Detour | None = None) -> None:
        """Hands messages on until cancelled; without a detour the bus keeps them while it can."""
        if detour is None:
            await self._carry(None)
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(detour.run(), name="live:detour")
            await self._carry(detour)

    async def _carry(self, detour: Detour | None) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if detour else None):
                    await self._arrived.wait()
            self._arrived.clear()
            bus = self.bus
            if detour is not None and (bus is None or not bus.is_flowing):
                messages = [*(bus.take_back() if bus else ()), *self._taken()]
                if messages:
                    self._on_detour(len(messages))
                for slug, payload in messages:
                    detour.publish(slug, payload)
            elif bus is not None:
                await bus.publish(self._taken())

    def _taken(self) -> list[Message]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken
