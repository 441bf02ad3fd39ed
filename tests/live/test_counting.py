"""Three speakers count at the same time; what was heard is compared with the truth, to the word.

Each word of a speaker is an audio watermark with speaker and number, so a hole, a double, a swapped
name or a wrong time shows as what it is.
"""

import asyncio
import json
import signal
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from db.records import words_from_json
from dev import watermark
from dev.gladia import GladiaStandIn
from dev.processes import Child
from dev.robot import Robot, Said, open_robot
from tests.live.programs import Web

pytestmark = [pytest.mark.live, pytest.mark.timeout(360)]

WORDS = 230
"""Numbers that each speaker counts: three minutes of speech."""
NAMES = ("Maria", "John", "Aiko")
TIME_ERROR = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A robot with the truth of what it says."""

    robot: Robot
    name: str
    recording: watermark.Recording

    @property
    def numbers(self) -> list[tuple[int, int]]:
        return [(mark.speaker, mark.number) for mark in self.recording.marks]


async def test_counting_speakers_are_heard_without_hole_double_or_swap(
    worker: Child, web: Web, gladia: GladiaStandIn, database_url: str
) -> None:
    slug = await web.create_session("Counting")
    async with AsyncExitStack() as stack:
        speakers = [await _join(stack, web, slug, index) for index in range(len(NAMES))]
        said = await _all_speak(speakers)
        watcher = speakers[0].robot
        total = len(NAMES) * WORDS
        with suppress(TimeoutError):  # what is missing is shown below
            await watcher.messages.until(lambda _: _word_count(watcher.finals()) >= total, 30)
            await watcher.captions.until(
                lambda got: sum(len(watermark.parse(c.text)) for c in got if c.is_final) >= total
            )
        for speaker in speakers:
            assert _missing(speaker, gladia) == ([], []), speaker.name
        stored = await _stored(web, slug, total)
        late = await web.join(slug, "Latecomer")
        assert late["identity"] not in {speaker.robot.identity for speaker in speakers}
        assert await web.transcript(slug) == stored

    for speaker in speakers:
        _check_speaker(speaker, watcher, stored)
    for speaker in speakers[1:]:
        assert _by_utterance(speaker.robot.finals()) == _by_utterance(watcher.finals())
    _check_versions(watcher.transcripts())
    assert set(gladia.heard().values()) == {1}
    await _check_times(database_url, speakers, said)
    worker.signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 30) == 0


async def _join(stack: AsyncExitStack, web: Web, slug: str, index: int) -> Speaker:
    ticket = await web.join(slug, NAMES[index])
    robot = await stack.enter_async_context(open_robot(ticket["serverUrl"], ticket["token"]))
    recording = watermark.encode(
        range(WORDS), index, period_s=0.62 + 0.05 * index, lead_s=0.5, pause_every=9, pause_s=1.2
    )
    return Speaker(robot, NAMES[index], recording)


async def _all_speak(speakers: Sequence[Speaker]) -> list[Said]:
    async with asyncio.timeout(30):
        for speaker in speakers:
            await speaker.robot.heard.wait()
    talks = [speaker.robot.start_saying(speaker.recording.pcm) for speaker in speakers]
    return [await talk for talk in talks]


def _missing(speaker: Speaker, gladia: GladiaStandIn) -> tuple[list[int], list[int]]:
    """Numbers that never reached the provider, and those that it heard but nobody else did."""
    heard = gladia.heard()
    finals = set(_heard(speaker.robot.finals()))
    unsent = [number for _, number in speaker.numbers if not heard[speaker.numbers[0][0], number]]
    lost = [n for who, n in speaker.numbers if heard[who, n] and (who, n) not in finals]
    return unsent, lost


def _check_speaker(speaker: Speaker, watcher: Robot, stored: Sequence[dict[str, Any]]) -> None:
    """Data messages, stored rows and captions all have this speaker's words, under one name."""
    identity = speaker.robot.identity
    finals = [body for body in watcher.finals() if body["speakerId"] == identity]
    rows = [row for row in stored if row["speakerId"] == identity]
    captions = [item for item in watcher.captions.items if item.sender == identity]
    texts = _by_utterance(finals)
    assert _heard(finals) == speaker.numbers
    assert _heard(rows) == speaker.numbers
    assert {body["speaker"] for body in [*finals, *rows]} == {speaker.name}
    assert _by_utterance(rows) == texts
    captioned = {c.attributes["lk.segment_id"]: c.text for c in captions if c.is_final}
    assert captioned == texts
    tracks = {caption.attributes["lk.transcribed_track_id"] for caption in captions}
    assert tracks == {speaker.robot.track_sid}


async def _stored(web: Web, slug: str, total: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        while True:
            rows = [row for row in await web.transcript(slug) if row["isFinal"]]
            if _word_count(rows) >= total:
                return rows
            await asyncio.sleep(0.2)


def _heard(bodies: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    ordered = sorted(bodies, key=lambda body: body["startedAt"])
    return [pair for body in ordered for pair in watermark.parse(body["text"])]


def _word_count(bodies: Sequence[dict[str, Any]]) -> int:
    return len(_heard(bodies))


def _by_utterance(bodies: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {body["utteranceId"]: body["text"] for body in bodies}


def _check_versions(bodies: Sequence[dict[str, Any]]) -> None:
    """Interims come first, then one final; revisions grow; one id stays with one speaker."""
    versions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for body in bodies:
        versions[body["utteranceId"]].append(body)
    for history in versions.values():
        assert [body["isFinal"] for body in history] == [False] * (len(history) - 1) + [True]
        revisions = [body["rev"] for body in history]
        assert revisions == sorted(set(revisions))
        assert len({body["speakerId"] for body in history}) == 1
    with_interims = [history for history in versions.values() if len(history) > 1]
    assert len(with_interims) > len(versions) / 2


async def _check_times(url: str, speakers: Sequence[Speaker], said: Sequence[Said]) -> None:
    """Each stored word lies within 100 ms of the moment at which it was spoken."""
    conn = await asyncpg.connect(url)
    rows = await conn.fetch("select identity, words from transcript_segments where is_final")
    await conn.close()
    heard: dict[tuple[str, str], datetime] = {}
    for row in rows:
        for word in words_from_json(json.loads(row["words"])):
            heard[row["identity"], word.text.strip()] = word.started_at
    errors = {
        (speaker.name, mark.text): heard[speaker.robot.identity, mark.text] - truth.at(mark.start_s)
        for speaker, truth in zip(speakers, said, strict=True)
        for mark in speaker.recording.marks
    }
    wrong = {who: late.total_seconds() for who, late in errors.items() if abs(late) > TIME_ERROR}
    assert wrong == {}
