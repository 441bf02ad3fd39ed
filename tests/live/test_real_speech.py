"""Three people talk at the same time, in words; each line comes out under its own name.

Recognition is the stand-in's small offline recogniser, so lines are compared by their words.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from difflib import SequenceMatcher
from typing import Any

import pytest

from dev.gladia import GladiaStandIn
from dev.gladia.speech_ear import SpeechEar
from dev.processes import Child
from dev.robot import open_robot
from dev.script import CAST, DIALOGUE
from dev.speech import INSTALL_HINT, has_espeak, speak
from tests.live.programs import Web

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

RECOGNISED_WITHIN_S = 90.0
"""Three recognisers share what cores there are."""


@pytest.fixture
async def gladia() -> AsyncIterator[GladiaStandIn]:
    """The stand-in with its ear for words, in place of the one for watermarks."""
    assert has_espeak(), INSTALL_HINT
    async with GladiaStandIn(ear=SpeechEar(processes=2)) as stand_in:
        yield stand_in


def lines_of(name: str) -> list[str]:
    return [text for speaker, text in DIALOGUE if speaker == name][:3]


def share_right(expected: str, heard: str) -> float:
    """Share of the expected words that were heard, in order."""
    words, got = (re.findall(r"[a-z']+", text.lower()) for text in (expected, heard))
    blocks = SequenceMatcher(None, words, got, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(words)


def spoken(finals: list[dict[str, Any]], identity: str) -> str:
    ordered = sorted(finals, key=lambda body: body["startedAt"])
    return " ".join(body["text"] for body in ordered if body["speakerId"] == identity)


async def test_overlapping_speech_comes_out_under_the_right_names(worker: Child, web: Web) -> None:
    slug = await web.create_session("Weekly planning")
    async with AsyncExitStack() as stack:
        robots = {}
        for name in CAST:
            ticket = await web.join(slug, name)
            robots[name] = await stack.enter_async_context(
                open_robot(ticket["serverUrl"], ticket["token"])
            )
        async with asyncio.timeout(30):
            for robot in robots.values():
                await robot.heard.wait()
        talks = []
        for name, robot in robots.items():
            for text in lines_of(name):
                pcm = await asyncio.to_thread(speak, text, CAST[name])
                talks.append(robot.start_saying(pcm, text))
        for talk in talks:
            await talk
        watcher = robots["John"]

        def all_recognised(_: object) -> bool:
            return all(
                share_right(" ".join(lines_of(name)), spoken(watcher.finals(), robot.identity))
                >= 0.6
                for name, robot in robots.items()
            )

        await watcher.messages.until(all_recognised, RECOGNISED_WITHIN_S)
        late = await web.join(slug, "Latecomer")
        assert late["roomName"] == slug
        finals = watcher.finals()
        for name, robot in robots.items():
            heard = spoken(finals, robot.identity)
            for other in CAST:
                if other != name:
                    assert share_right(" ".join(lines_of(other)), heard) < 0.5
            assert {body["speaker"] for body in finals if body["speakerId"] == robot.identity} == {
                name
            }
        stored = [row for row in await web.transcript(slug) if row["isFinal"]]
        assert {row["utteranceId"] for row in stored} >= {body["utteranceId"] for body in finals}
