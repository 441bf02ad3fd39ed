"""Robots' voices and the ear that recognises them."""

import asyncio
import re
from collections.abc import AsyncIterator
from difflib import SequenceMatcher

import aiohttp
import numpy as np
import pytest
from livekit.local_inference import VAD, VAD_WINDOW_SAMPLES

from dev.gladia import GladiaStandIn
from dev.gladia.speech_ear import SpeechEar
from dev.script import CAST, DIALOGUE
from dev.speech import INSTALL_HINT, Voice, babble, has_espeak, speak
from tests.dev.live_client import MEETING, Client

LINES = {CAST[name]: text for name, text in DIALOGUE[:3]}
SILENCE = bytes(32_000)


@pytest.fixture
async def speech_client() -> AsyncIterator[Client]:
    assert has_espeak(), INSTALL_HINT
    async with (
        GladiaStandIn(ear=SpeechEar()) as standin,
        aiohttp.ClientSession() as http,
    ):
        client = Client(standin, http)
        yield client
        await client.aclose()


def share_right(expected: str, heard: str) -> float:
    """Share of the expected words that were heard, in order."""
    words, got = (re.findall(r"[a-z']+", text.lower()) for text in (expected, heard))
    blocks = SequenceMatcher(None, words, got, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(words)


async def test_recognises_sentences_of_several_sessions_at_once(speech_client: Client) -> None:
    sockets = [await speech_client.open() for _ in Voice]
    for socket, voice in zip(sockets, Voice, strict=True):
        await socket.send(SILENCE + speak(LINES[voice], voice).tobytes() + SILENCE)
    shares: list[float] = []
    for socket, voice in zip(sockets, Voice, strict=True):
        await socket.stop()
        shares.append(share_right(LINES[voice], socket.text()))
        first = socket.finals()[0]["utterance"]
        assert first["start"] == pytest.approx(1.0, abs=0.3)
        assert all(word["start"] < word["end"] for word in first["words"])
    assert sum(shares) / len(shares) >= 0.6


async def test_interims_come_while_the_utterance_is_open(speech_client: Client) -> None:
    socket = await speech_client.open(MEETING | {"endpointing": 10})
    await socket.send(speak(LINES[Voice.SECOND], Voice.SECOND).tobytes())
    session = speech_client.standin.sessions[0]
    async with asyncio.timeout(30):
        while not any('"is_final":false' in message for message in session.messages):
            await socket.send(bytes(1600))
            await asyncio.sleep(0.25)
    await socket.stop()
    assert socket.interims()[0]["id"] == socket.finals()[0]["id"]


async def test_two_sentences_are_two_finals(speech_client: Client) -> None:
    text = LINES[Voice.SECOND]
    speech = speak(text, Voice.SECOND).tobytes()
    socket = await speech_client.open(MEETING | {"endpointing": 0.5})
    await socket.send(speech + SILENCE + speech + SILENCE)
    await socket.stop()
    assert [final["id"] for final in socket.finals()] == ["00_00000000", "00_00000001"]
    assert all(share_right(text, item["utterance"]["text"]) >= 0.6 for item in socket.finals())


def test_babble_opens_a_voice_detector_and_repeats_itself() -> None:
    pcm = babble("hello big wide world.", Voice.FIRST)
    assert np.array_equal(pcm, babble("hello big wide world.", Voice.FIRST))
    vad = VAD()
    windows = pcm[: len(pcm) // VAD_WINDOW_SAMPLES * VAD_WINDOW_SAMPLES]
    probabilities = [vad.predict(window) for window in windows.reshape(-1, VAD_WINDOW_SAMPLES)]
    assert np.mean(np.array(probabilities) > 0.5) > 0.6
