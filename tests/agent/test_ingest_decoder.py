"""The decoder against real ffmpeg and real PyAV: no sample lost when a child dies."""

import asyncio
import os
import signal
import sys
from collections import Counter

import pytest

from agent.ingest import decoder as decoding
from agent.ingest.decoder import Decoder, find_decoder
from core.rtmp import AudioTag
from tests.agent.ingest_kit import FFMPEG_HINT, Tape, aac_tags, loudness, needed, tone_at, until

COMMANDS = ["ffmpeg", "pyav"]


def tag(at_ms: int, body: bytes) -> AudioTag:
    return AudioTag(at_ms, body, is_header=body[1] == 0)


def made(command: str) -> tuple[Decoder, Tape, Counter[str]]:
    if command == "ffmpeg":
        needed("ffmpeg", FFMPEG_HINT)
    tape, faults = Tape(), Counter[str]()
    return (
        Decoder(find_decoder(command), tape.push, lambda kind: faults.update([kind])),
        tape,
        faults,
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
async def test_a_stream_comes_out_whole(command: str, rate_hz: int) -> None:
    decoder, tape, faults = made(command)
    for at_ms, body in aac_tags(4, rate_hz):
        decoder.feed(tag((at_ms + 0xFFFFFF) if body[1] else 0, body))
    decoder.finish()
    await decoder.run()
    assert tape.seconds == pytest.approx(4, abs=0.1)
    assert [round(tone_at(bytes(tape.pcm), s) / 100) for s in (0.25, 1.25, 3.25)] == [2, 4, 8]
    assert (faults, tape.jumps) == (Counter(), [])


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_hole_in_the_stream_becomes_silence(command: str) -> None:
    decoder, tape, _ = made(command)
    for at_ms, body in aac_tags(4):
        if not 1000 < at_ms <= 3000:
            decoder.feed(tag(at_ms, body))
    decoder.finish()
    await decoder.run()
    pcm = bytes(tape.pcm)
    assert tape.seconds == pytest.approx(4, abs=0.2)
    assert loudness(pcm, 1.3, 2.8) < 100 < loudness(pcm, 0.2, 0.8)
    assert round(tone_at(pcm, 3.75) / 100) == 9


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_killed_child_is_replaced_and_no_sample_is_lost(command: str) -> None:
    decoder, tape, faults = made(command)
    tags = aac_tags(6)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(decoder.run(), name="decoder")
        for number, (at_ms, body) in enumerate(tags):
            decoder.feed(tag(at_ms, body))
            if number in {30, 60}:
                heard_s = number * 0.064 - 1
                await until(lambda s=heard_s: decoder.pid is not None and tape.seconds > s, 30)
                assert decoder.pid is not None
                os.kill(decoder.pid, signal.SIGKILL)
                seen = faults["exit"]
                await until(lambda seen=seen: faults["exit"] > seen)
        decoder.finish()
        await running
    assert faults["exit"] == 2
    assert tape.jumps == []
    assert tape.seconds == pytest.approx(6, abs=0.1)
    tones = [round(tone_at(bytes(tape.pcm), s + 0.25) / 100) for s in range(6)]
    assert tones == [2, 4, 6, 8, 10, 12]


async def test_a_silent_child_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STUCK_S", 0.3)
    faults = Counter[str]()
    mute = (sys.executable, "-c", "import sys\nwhile sys.stdin.buffer.read(99): pass")
    decoder = Decoder(mute, lambda *_: None, lambda kind: faults.update([kind]))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(decoder.run(), name="decoder")
        for at_ms, body in aac_tags(4):
            decoder.feed(tag(at_ms, body))
        await until(lambda: faults["stuck"] >= 2)
        decoder.finish()
        await until(running.done)


async def test_broken_sound_is_survived() -> None:
    decoder, tape, _ = made("ffmpeg")
    for number, (at_ms, body) in enumerate(aac_tags(4)):
        broken = body[: len(body) // 2] + bytes(len(body) - len(body) // 2)
        decoder.feed(tag(at_ms, broken if number % 20 == 10 else body))
    decoder.finish()
    await decoder.run()
    assert tape.seconds == pytest.approx(4, abs=0.2)


async def test_a_child_that_does_not_read_makes_the_caller_wait() -> None:
    idle = (sys.executable, "-c", "import time; time.sleep(60)")
    decoder = Decoder(idle, lambda *_: None, lambda _: None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(decoder.run(), name="decoder")
        decoder.feed(tag(0, b"\xaf\x00\x14\x08"))
        await until(lambda: decoder.pid is not None)
        for number in range(1200):
            decoder.feed(tag(number, b"\xaf\x01" + bytes(1000)))
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await decoder.ready()
        running.cancel()


async def test_without_a_header_nothing_is_started() -> None:
    decoder, tape, _ = made("ffmpeg")
    decoder.feed(tag(0, b"\xaf\x01abc"))
    decoder.finish()
    await decoder.run()
    assert (decoder.pid, tape.seconds) == (None, 0)
