"""Looks at rooms through LiveKit's server API: which bots are there, how many at most."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from livekit import api

from agent.subscriptions import is_bot
from dev.livekit import LiveKitServer
from dev.processes import Child

_LOOK_EVERY_S = 0.04


def room_token(server: LiveKitServer, room: str, identity: str, kind: str = "standard") -> str:
    grants = api.VideoGrants(room_join=True, room=room, agent=kind == "agent")
    token = api.AccessToken(server.api_key, server.api_secret).with_identity(identity)
    return token.with_name(identity.title()).with_kind(kind).with_grants(grants).to_jwt()  # type: ignore[arg-type]  # a literal


@dataclass(slots=True)
class RoomWatch:
    """What one room looked like since the watch began."""

    client: api.LiveKitAPI
    room: str
    bots: tuple[str, ...] = ()
    """Listed now."""
    most: int = 0
    """Listed at the same time, at most."""
    seen: list[str] = field(default_factory=list)
    """Every bot that ever was there, in order."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while True:
            self._note(await self._listed())
            await asyncio.sleep(_LOOK_EVERY_S)

    async def bot(self, *, other_than: str = "", within_s: float = 45) -> tuple[str, float]:
        """A bot that is not `other_than`, and the seconds until it was listed."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                while not (here := [one for one in self.bots if one != other_than]):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as exc:
            exc.add_note(f"bots now {self.bots}, ever {self.seen}, before {other_than}")
            raise
        return here[0], time.monotonic() - began

    async def _listed(self) -> tuple[str, ...]:
        request = api.ListParticipantsRequest(room=self.room)
        try:
            answer = await self.client.room.list_participants(request)
        except (api.ServerError, OSError):
            return ()
        return tuple(
            one.identity for one in answer.participants if is_bot(one.kind, one.attributes)
        )

    def _note(self, bots: tuple[str, ...]) -> None:
        self.seen += [bot for bot in bots if bot not in self.seen]
        self.most = max(self.most, len(bots))
        if bots != self.bots:
            self.bots = bots
            self._changed.set()


@asynccontextmanager
async def watching(server: LiveKitServer, room: str) -> AsyncIterator[RoomWatch]:
    """Watches `room`; fails the test when two bots were ever listed at once."""
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
        watch = RoomWatch(client, room)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(watch.run(), name=f"watch:{room}")
            try:
                yield watch
            finally:
                running.cancel()
        assert watch.most <= 1, f"{watch.most} bots at once in {room}: {watch.seen}"


def job_pid(worker: Child, room: str) -> int:
    """The process that serves `room`, by the worker's log."""
    pids = [
        record["pid"]
        for line in worker.output.splitlines()
        if line.startswith("{")
        and (record := json.loads(line)).get("room") == room
        and record["logger"] == "agent.room"
    ]
    assert pids, f"no job for {room}\n{worker.tail()}"
    return int(pids[-1])
