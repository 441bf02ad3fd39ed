"""Rooms in which people count while something goes wrong, and the wait for the verdict."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

from dev.counting import Talker, Verdict, Witness, judge, stored_lines
from dev.gladia import GladiaStandIn
from dev.gladia.faults import Fault, When
from dev.gladia.policy import Policy
from dev.livekit import LiveKitServer
from dev.robot import Robot, open_robot

AT_ONCE = 4
"""Rooms: on two cores more of them would make the speakers stutter."""
HEARD_WITHIN_S = 60.0
FIRST_AUDIO_S = 1.0
"""From the subscription of a track to its first audio, with room to spare."""
SETTLED_WITHIN_S = 75.0
_LOOK_EVERY_S = 0.5
TRIES = 2
"""When the whole machine stands still for half a second, as small ones do, WebRTC throws sound
away. So what failed is played once more: what is wrong with us goes wrong again."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault, when it comes in the session of its room, and how often."""

    fault: Fault
    at_byte: int | None = None
    times: int | None = 1

    def arm(self, gladia: GladiaStandIn, slug: str) -> None:
        when = When(at_byte=self.at_byte, metadata={"session": slug})
        gladia.faults.add(self.fault, when=when, times=self.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One person in one room, counting through its troubles."""

    name: str
    troubles: tuple[Trouble, ...] = ()
    policy: Policy | None = None
    words: int = 24
    pause_s: float = 1.2
    gaps: bool = False
    """Audio may be lost for good, as long as a gap says so."""
    states: frozenset[str] = frozenset()
    """States of the speaker that the status must have shown."""
    reasons: frozenset[str] = frozenset()
    """Reasons that it must have shown."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a scenario went."""

    name: str
    verdict: Verdict
    shown: set[tuple[str, str]] = field(default_factory=set)
    """Speaker states and reasons in the status messages."""
    took_s: float = 0.0
    """From the last word to the verdict."""


async def play(
    scenario: Scenario, server: LiveKitServer, gladia: GladiaStandIn, database_url: str, slug: str
) -> Outcome:
    """Runs one scenario in room `slug` and judges what was stored."""
    for trouble in scenario.troubles:
        trouble.arm(gladia, slug)
    if scenario.policy is not None:
        gladia.policies[slug] = scenario.policy
    talker = Talker(3, "maria")
    async with (
        open_robot(server.url, server.token(slug, "maria", "Maria")) as robot,
        Witness().listening(server.url, server.token(slug, "witness")) as witness,
    ):
        await heard(robot)
        await talker.count(
            robot, scenario.words, period_s=0.45, pause_every=8, pause_s=scenario.pause_s
        )
        began = monotonic()
        verdict = await settled(database_url, slug, [talker], witness)
        outcome = Outcome(name=scenario.name, verdict=verdict)
        outcome.took_s = monotonic() - began
        outcome.shown = shown_states(robot)
    print(f"{scenario.name}: {verdict}, settled after {outcome.took_s:.1f} s")  # noqa: T201 - figures
    return outcome


async def play_all(
    scenarios: Iterable[Scenario],
    server: LiveKitServer,
    gladia: GladiaStandIn,
    database_url: str,
    slug: str,
) -> list[str]:
    """Plays them, a few at a time, each in a room of its own; returns what went wrong."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def in_turn(scenario: Scenario, room: str) -> list[str]:
        problems: list[str] = []
        async with at_once:
            for attempt in range(TRIES):
                outcome = await play(scenario, server, gladia, database_url, f"{room}-{attempt}")
                problems = check(outcome, scenario)
                if not problems:
                    break
                print(f"try {attempt + 1}: {problems}")  # noqa: T201 - figures
        return problems

    async with asyncio.TaskGroup() as tasks:
        playing = []
        for number, scenario in enumerate(scenarios):
            work = in_turn(scenario, f"{slug}-{number}")
            playing.append(tasks.create_task(work, name=f"scenario:{scenario.name}"))
            await asyncio.sleep(0.5)  # a job is started for each
    return [problem for task in playing for problem in task.result()]


def check(outcome: Outcome, scenario: Scenario) -> list[str]:
    """What went wrong, in words; empty where the promise was kept."""
    found = [f"{outcome.name}: {what}: {items}" for what, items in outcome.verdict.problems.items()]
    if outcome.verdict.covered and not scenario.gaps:
        found.append(f"{outcome.name}: words lost to a gap: {outcome.verdict.covered}")
    states = {state for state, _ in outcome.shown}
    reasons = {reason for _, reason in outcome.shown}
    if not scenario.states <= states:
        found.append(f"{outcome.name}: never shown: {scenario.states - states} of {states}")
    if not scenario.reasons <= reasons:
        found.append(f"{outcome.name}: never shown: {scenario.reasons - reasons} of {reasons}")
    return found


async def heard(robot: Robot, within_s: float = HEARD_WITHIN_S) -> None:
    """Returns once a bot listens to the robot."""
    async with asyncio.timeout(within_s):
        await robot.heard.wait()
    await asyncio.sleep(FIRST_AUDIO_S)


async def settled(
    database_url: str,
    slug: str,
    talkers: Iterable[Talker],
    witness: Witness | None = None,
    within_s: float = SETTLED_WITHIN_S,
) -> Verdict:
    """The verdict once every word is accounted for, or when the time is over."""
    deadline = monotonic() + within_s
    spoken = [word for talker in talkers for word in talker.spoken]
    while True:
        verdict = judge(spoken, await stored_lines(database_url, slug), witness)
        if verdict.is_complete or monotonic() > deadline:
            return verdict
        await asyncio.sleep(_LOOK_EVERY_S)


def shown_states(robot: Robot) -> set[tuple[str, str]]:
    """Every (state, reason) of a speaker in the status messages so far."""
    return {
        (speaker["state"], speaker.get("reason") or "")
        for message in robot.messages.items
        if message.topic == "status"
        for speaker in message.body["speakers"]
    }
