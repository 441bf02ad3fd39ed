"""The LiveKit plugin: alone, and in a real AgentSession, against the stand-in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import (
    Agent,
    AgentSession,
    APIConnectionError,
    APIConnectOptions,
    APIStatusError,
    UserInputTranscribedEvent,
    stt,
)
from livekit.agents.voice.io import AudioInput

from agent.gladia import STT
from agent.gladia.slots import SessionSlots
from core.errors import ConfigError
from core.gladia.options import GladiaOptions
from dev import watermark
from dev.gladia import GladiaStandIn
from dev.gladia.faults import Drop, RefusePost, When

Kind = stt.SpeechEventType


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def plugin(gladia: GladiaStandIn, http: aiohttp.ClientSession, tmp_path: Path) -> Any:
    def make(**settings: Any) -> STT:
        settings = {"api_key": gladia.api_key, "base_url": gladia.base_url} | settings
        slots = SessionSlots(tmp_path / "slots", 30)
        return STT(http_session=http, slots=slots, **settings)

    return make


def frames(
    first: int, last: int, *, sample_rate: int = 16_000, channels: int = 1
) -> list[rtc.AudioFrame]:
    """A speaker counting, in frames of 50 ms."""
    pcm = watermark.encode(range(first, last + 1), 0, sample_rate=sample_rate).pcm
    step = sample_rate // 20
    return [
        rtc.AudioFrame(
            data=part.repeat(channels).tobytes(),
            sample_rate=sample_rate,
            num_channels=channels,
            samples_per_channel=len(part),
        )
        for part in (pcm[start : start + step] for start in range(0, len(pcm), step))
    ]


async def collect(stream: stt.RecognizeStream, audio: list[rtc.AudioFrame]) -> list[Any]:
    """Pushes everything, ends the input, and gathers all events."""
    for frame in audio:
        stream.push_frame(frame)
        await asyncio.sleep(0.002)
    stream.end_input()
    async with aclosing(stream):
        return [event async for event in stream]


def texts(events: list[Any], kind: Kind) -> str:
    return " ".join(e.alternatives[0].text for e in events if e.type is kind)


async def test_events_come_in_the_framework_s_order(plugin: Any, gladia: GladiaStandIn) -> None:
    events = await collect(plugin().stream(), frames(1, 4))
    kinds = [event.type for event in events if event.type is not Kind.RECOGNITION_USAGE]
    assert kinds[0] is Kind.START_OF_SPEECH
    assert kinds[-2:] == [Kind.FINAL_TRANSCRIPT, Kind.END_OF_SPEECH]
    assert set(kinds[1:-2]) == {Kind.INTERIM_TRANSCRIPT}
    final = next(e for e in events if e.type is Kind.FINAL_TRANSCRIPT).alternatives[0]
    assert final.text == "a1 a2 a3 a4"
    assert final.language == "en"
    marks = watermark.encode(range(1, 5), 0).marks
    assert [str(word) for word in final.words] == [mark.text for mark in marks]
    for word, mark in zip(final.words, marks, strict=True):
        assert word.start_time == pytest.approx(mark.start_s, abs=0.02)
    usage = [e.recognition_usage.audio_duration for e in events if e.type is Kind.RECOGNITION_USAGE]
    assert sum(usage) == pytest.approx(gladia.billed_s, abs=0.01)


@pytest.mark.parametrize(("sample_rate", "channels"), [(48_000, 1), (16_000, 2)])
async def test_other_rates_and_channels_are_converted(
    plugin: Any, sample_rate: int, channels: int
) -> None:
    audio = frames(5, 7, sample_rate=sample_rate, channels=channels)
    events = await collect(plugin().stream(), audio)
    assert texts(events, Kind.FINAL_TRANSCRIPT) == "a5 a6 a7"


async def test_a_drop_is_no_event_of_the_stream(plugin: Any, gladia: GladiaStandIn) -> None:
    """The official plugin 1.8.9 ends here, without an error."""
    errors: list[stt.STTError] = []
    made = plugin()
    made.on("error", errors.append)
    gladia.faults.add(Drop(how="reset"), when=When(at_chunk=9))
    events = await collect(made.stream(), frames(1, 6))
    assert texts(events, Kind.FINAL_TRANSCRIPT) == "a1 a2 a3 a4 a5 a6"
    assert all(error.recoverable for error in errors)


async def test_flush_is_harmless(plugin: Any, gladia: GladiaStandIn) -> None:
    """The official plugin 1.8.9 ends the session with the chunk that follows a flush."""
    stream = plugin().stream()
    for frame in frames(1, 3):
        stream.push_frame(frame)
        stream.flush()
    events = await collect(stream, [])
    assert texts(events, Kind.FINAL_TRANSCRIPT) == "a1 a2 a3"
    assert len(gladia.sessions) == 1


async def test_a_bad_key_ends_the_stream_at_once(plugin: Any, gladia: GladiaStandIn) -> None:
    """The official plugin 1.8.9 asks four times."""
    stream = plugin(api_key="wrong").stream()
    for frame in frames(1, 1):
        stream.push_frame(frame)
    with pytest.raises(APIStatusError) as caught:
        await anext(stream)
    assert caught.value.status_code == 401
    assert not caught.value.retryable
    assert not gladia.sessions
    await stream.aclose()


async def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLADIA_API_KEY", raising=False)
    with pytest.raises(ConfigError):
        STT()
    monkeypatch.setenv("GLADIA_API_KEY", "key")
    assert STT().provider == "Gladia"


async def test_gives_up_only_when_told_to(plugin: Any, http: aiohttp.ClientSession) -> None:
    made = plugin(base_url="http://127.0.0.1:1", give_up_after_s=0.2)
    stream = made.stream(conn_options=APIConnectOptions(max_retry=0))
    stream.push_frame(frames(1, 1)[0])
    stream.push_frame(frames(1, 1)[1])
    with pytest.raises(APIConnectionError):
        await anext(stream)
    await stream.aclose()


async def test_audio_survives_the_framework_s_retry(plugin: Any, gladia: GladiaStandIn) -> None:
    """The framework enters `_run` again after an outage: the same buffer goes on."""
    made = plugin(give_up_after_s=0.1)
    errors: list[stt.STTError] = []
    made.on("error", errors.append)
    stream = made.stream(conn_options=APIConnectOptions(max_retry=3, retry_interval=0.1))
    gladia.faults.add(RefusePost(status=503))
    events = await collect(stream, frames(1, 5))
    assert errors
    assert texts(events, Kind.FINAL_TRANSCRIPT) == "a1 a2 a3 a4 a5"


async def test_translation_keeps_the_original(plugin: Any) -> None:
    options = GladiaOptions(translation_languages=("fr",))
    events = await collect(plugin(options=options).stream(), frames(1, 3))
    finals = [e.alternatives[0] for e in events if e.type is Kind.FINAL_TRANSCRIPT]
    assert [final.text for final in finals] == ["a1 a2 a3"]
    assert finals[0].target_languages == ["fr"]
    assert finals[0].target_texts is not None
    assert len(finals[0].target_texts) == 1
    assert finals[0].source_texts == ["a1 a2 a3"]


async def test_language_of_a_stream_replaces_the_options(
    plugin: Any, gladia: GladiaStandIn
) -> None:
    await collect(plugin().stream(language="fr-FR"), frames(1, 1))
    languages = gladia.sessions[0].request.body["language_config"]["languages"]
    assert languages == ["fr"]


async def test_recognises_a_recording(plugin: Any) -> None:
    event = await plugin().recognize(frames(1, 5, sample_rate=48_000))
    assert event.alternatives[0].text == "a1 a2 a3 a4 a5"
    assert [str(word) for word in event.alternatives[0].words] == ["a1", "a2", "a3", "a4", "a5"]


async def test_recognising_with_a_bad_key_says_so(plugin: Any) -> None:
    with pytest.raises(APIStatusError):
        await plugin(api_key="wrong").recognize(frames(1, 1))


class Microphone(AudioInput):
    """A speaker who counts in real time's tenth, then is silent."""

    def __init__(self, audio: list[rtc.AudioFrame]) -> None:
        super().__init__(label="microphone")
        self._audio = iter(audio)
        self._rest = asyncio.Event()

    async def __anext__(self) -> rtc.AudioFrame:
        frame = next(self._audio, None)
        if frame is None:
            await self._rest.wait()
            raise StopAsyncIteration
        await asyncio.sleep(0.005)
        return frame


async def test_a_real_agent_session_hears_interims_and_finals(
    plugin: Any, gladia: GladiaStandIn
) -> None:
    """With a drop in the middle, to which the framework stays deaf and we do not."""
    gladia.faults.add(Drop(how="reset"), when=When(at_chunk=15))
    session: AgentSession[None] = AgentSession(
        stt=plugin(), vad=None, turn_detection="manual", user_away_timeout=None
    )
    heard: list[UserInputTranscribedEvent] = []
    done = asyncio.Event()

    def on_text(event: UserInputTranscribedEvent) -> None:
        heard.append(event)
        if event.is_final and "a8" in event.transcript:
            done.set()

    session.on("user_input_transcribed", on_text)
    session.input.audio = Microphone(frames(1, 8))
    await session.start(Agent(instructions="Listen."))
    async with asyncio.timeout(20):
        await done.wait()
    await session.aclose()
    assert " ".join(e.transcript for e in heard if e.is_final) == "a1 a2 a3 a4 a5 a6 a7 a8"
    assert any(not e.is_final for e in heard)
