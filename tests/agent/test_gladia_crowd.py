"""More people than Gladia sessions, all of whom stay: everybody is heard, and no word is lost."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.gladia.slots import SessionSlots
from core.gladia.limits import Limits
from dev.gladia import GladiaStandIn
from dev.gladia.policy import Policy
from tests.agent.gladia_kit import Speaker, open_speaker, until

SESSIONS = 2


@pytest.mark.parametrize("ours", [SESSIONS, 30], ids=["our limit", "the account's limit"])
async def test_who_is_silent_makes_room_for_who_speaks(tmp_path: Path, ours: int) -> None:
    """Nobody leaves, and no pause lasts the minute after which a session is closed anyway."""
    policy = Policy(max_sessions=SESSIONS, retry_after_s=0.2, final_delay_s=0.2)
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(GladiaStandIn(policy=policy))
        jobs = [SessionSlots(tmp_path, ours), SessionSlots(tmp_path, ours)]
        maria, john, aiko, omar = [
            await stack.enter_async_context(
                open_speaker(standin, jobs[number % 2], limits=Limits())
            )
            for number in range(4)
        ]
        for speaker in (maria, john):
            await says(speaker, 1, 3)
        assert len(standin.open_sessions()) == SESSIONS
        for speaker in (aiko, omar):
            await says(speaker, 1, 3)
        await says(maria, 4, 6)
        assert standin.peak_slots <= SESSIONS
        for speaker in (maria, john, aiko, omar):
            await speaker.live.drain(10)
            speaker.assert_intact()
            assert "failed" not in speaker.states()


async def says(speaker: Speaker, first: int, last: int) -> None:
    """Speaks, pauses, and is understood."""
    await speaker.count(first, last)
    speaker.rest()
    await until(lambda: speaker.has_finals(speaker.expected), 40)
