"""`make demo`: robots that join a session through the web service and hold a conversation.

python -m dev.robots --web http://127.0.0.1:3000 [--session SLUG] [--rounds N]
"""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import httpx

from dev.reporter import Reporter
from dev.robot import SAMPLE_RATE, Pcm, Robot, open_robot
from dev.script import CAST, DIALOGUE
from dev.speech import INSTALL_HINT, has_espeak, speak

_PAUSE_S: Final = 0.7
_HEARD_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """How to find the session again."""

    web: str
    slug: str

    @property
    def link(self) -> str:
        return f"{self.web}/session/{self.slug}"


async def invite(web: str, slug: str | None) -> Invitation:
    """The session to talk in: `slug`, or a new one."""
    if slug is not None:
        return Invitation(web, slug)
    async with httpx.AsyncClient(base_url=web, timeout=20) as http:
        answer = await http.post("/api/sessions", json={"title": "Robots at work"})
        answer.raise_for_status()
        return Invitation(web, answer.json()["slug"])


@dataclass(frozen=True, slots=True)
class Actor:
    """A robot that tells the service when it speaks, as a browser does."""

    robot: Robot
    reporter: Reporter

    async def say(self, pcm: Pcm, text: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reporter.speaks(len(pcm) / SAMPLE_RATE), name="reporter")
            await self.robot.say(pcm, text)


async def join(stack: AsyncExitStack, invitation: Invitation, name: str) -> Actor:
    """A robot called `name` in the session. A client of its own: cookies make a guest."""
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=invitation.web, timeout=20))
    path = f"/api/sessions/{invitation.slug}/token"
    answer = await http.get(path, params={"name": name})
    answer.raise_for_status()
    ticket: dict[str, Any] = answer.json()
    robot = await stack.enter_async_context(open_robot(ticket["serverUrl"], ticket["token"]))
    return Actor(robot, Reporter(http, invitation.slug, robot.identity, ticket["token"]))


async def talk(actors: dict[str, Actor], lines: Iterator[tuple[str, str]]) -> None:
    """Says the lines one after the other, each in its robot's voice."""
    for name, text in lines:
        pcm = await asyncio.to_thread(speak, text, CAST[name])
        await actors[name].say(pcm, text)
        await asyncio.sleep(_PAUSE_S)


async def show(robot: Robot) -> None:
    """Prints each final as it arrives in the room."""
    shown = 0
    while True:
        await robot.messages.until(lambda _: len(robot.finals()) > shown, timeout_s=3600)  # noqa: B023 - read at once
        for body in robot.finals()[shown:]:
            print(f"{body['speaker']}: {body['text']}", flush=True)
            shown += 1


async def demo(web: str, slug: str | None, rounds: int) -> None:
    if not has_espeak():
        print(f"robots only babble, without words: {INSTALL_HINT}", flush=True)
    invitation = await invite(web, slug)
    print(f"robots talk in {invitation.link}", flush=True)
    async with AsyncExitStack() as stack:
        actors = {name: await join(stack, invitation, name) for name in CAST}
        listener = next(iter(actors.values())).robot
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEARD_WITHIN_S):
                await listener.heard.wait()
        lines = cycle(DIALOGUE) if rounds == 0 else iter(DIALOGUE * rounds)
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(show(listener), name="show")
            await talk(actors, lines)
            await asyncio.sleep(5)  # for the last words
            showing.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.robots", description=__doc__)
    parser.add_argument("--web", default="http://127.0.0.1:3000", help="address of the web service")
    parser.add_argument("--session", help="slug of a session to join; a new one if not given")
    parser.add_argument("--rounds", type=int, default=0, help="how often; 0: until stopped")
    options = parser.parse_args()

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await demo(options.web, options.session, options.rounds)

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped())


if __name__ == "__main__":
    main()
