"""What a speaker loses when Gladia stumbles: our plugin beside livekit-plugins-gladia 1.8.9.

Both plugins get the same counted speech, in real time, over the same stand-in with the same fault.
`python -m bench.faults` prints one line per fault: words lost, whether text came again after the
fault, and for how many seconds no spoken word was heard.
"""

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import APIError, stt
from livekit.plugins import gladia as official
from livekit.plugins.gladia import stt as official_stt

from agent.gladia import STT
from agent.gladia.slots import SessionSlots
from core.gladia.options import GladiaOptions
from dev import watermark
from dev.gladia import GladiaStandIn
from dev.gladia.faults import (
    Acks,
    Drop,
    Fault,
    Finals,
    RefuseHandshake,
    RefusePost,
    Say,
    Stall,
    When,
)
from dev.gladia.policy import Policy

WORDS = 30
PERIOD_S = 0.5
FRAME_S = 0.05
FAULT_S = 8
"""Into the speech: in the middle of the second of its three utterances."""
FAULT_BYTE = FAULT_S * 32_000
PATIENCE_S = 25.0
"""After the last word, for what is still to come."""
BACKGROUND = Policy(retry_after_s=1.0, final_delay_s=0.2)

FAULTS: dict[str, list[tuple[Fault, When | None]]] = {
    "none": [],
    "TCP reset": [(Drop(how="reset"), When(at_byte=FAULT_BYTE))],
    "close 1001": [(Drop(how=1001), When(at_byte=FAULT_BYTE))],
    "close 1011": [(Drop(how=1011), When(at_byte=FAULT_BYTE))],
    "session ended (4403)": [(Drop(how=4403, end_session=True), When(at_byte=FAULT_BYTE))],
    "half-open socket": [(Stall(), When(at_byte=FAULT_BYTE, connection=1, session=1))],
    "three resets": [
        (Drop(how="reset"), When(at_byte=FAULT_BYTE + after_s * 32_000)) for after_s in (0, 2, 4)
    ],
    "handshake 503 after a drop": [
        (Drop(how="reset"), When(at_byte=FAULT_BYTE)),
        (RefuseHandshake(status=503), When(connection=2)),
    ],
    "first handshake 503": [(RefuseHandshake(status=503), When(session=1, connection=1))],
    "429 five times": [(RefusePost(status=429, retry_after_s=1.0), None)] * 5,
    "500 five times": [(RefusePost(status=500), None)] * 5,
    "chunk refused": [(Acks(how="refuse"), When(at_byte=FAULT_BYTE))],
    "malformed message": [(Say(frame="{nonsense"), When(at_byte=FAULT_BYTE))],
    "final doubled": [(Finals(how="double"), None)],
    "final only in the result": [(Finals(how="only_result"), None)],
}
_plugins_config = official_stt._build_streaming_config  # noqa: SLF001 - see below


def _accepted_config(opts: official_stt.STTOptions) -> dict[str, Any]:
    """The plugin's request without `words_accurate_timestamps`.

    Gladia's OpenAPI does not know that field and the stand-in, as strict as that, refuses it;
    whether the real service does is unknown, so the comparison does not rest on it.
    """
    config = _plugins_config(opts)
    config["realtime_processing"].pop("words_accurate_timestamps", None)
    return config


official_stt._build_streaming_config = _accepted_config  # noqa: SLF001 - as above


@dataclass
class Outcome:
    """What one plugin made of one fault."""

    lost: int
    doubled: int
    recovered: bool
    deaf_s: float
    error: str = ""

    def __str__(self) -> str:
        verdict = "yes" if self.recovered else "NO"
        return f"{self.lost:5} {self.doubled:7} {verdict:>10} {self.deaf_s:7.1f}  {self.error}"


async def speak(stream: stt.RecognizeStream) -> None:
    """Counts in real time. A stream that has died takes no more, as in a worker."""
    recording = watermark.encode(
        range(1, WORDS + 1), 0, period_s=PERIOD_S, pause_every=10, pause_s=0.8
    )
    step = round(FRAME_S * recording.sample_rate)
    loop = asyncio.get_running_loop()
    due = loop.time()
    with suppress(RuntimeError):
        for start in range(0, len(recording.pcm), step):
            part = recording.pcm[start : start + step]
            stream.push_frame(rtc.AudioFrame(part.tobytes(), 16_000, 1, len(part)))
            due += FRAME_S
            await asyncio.sleep(max(due - loop.time(), 0))
        stream.end_input()


async def listen(stream: stt.RecognizeStream, finals: list[str]) -> str:
    """Collects finals until the stream ends; returns the error that ended it."""
    try:
        async for event in stream:
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                finals += [event.alternatives[0].text]
    except (APIError, aiohttp.ClientError) as error:
        return type(error).__name__
    return ""


async def play(plugin: stt.STT[Any]) -> Outcome:
    """One speech through one plugin."""
    finals: list[str] = []
    stream = plugin.stream()
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen(stream, finals), name="listen")
        await speak(stream)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait([listening])
        error = listening.result() if listening.done() else "still waiting"
        listening.cancel()
    await stream.aclose()
    return judge(finals, error)


def judge(finals: Sequence[str], error: str) -> Outcome:
    """Words against the truth: each number once."""
    heard = [number for text in finals for _, number in watermark.parse(text)]
    missing = [number for number in range(1, WORDS + 1) if number not in heard]
    return Outcome(
        lost=len(missing),
        doubled=len(heard) - len(set(heard)),
        recovered=WORDS in heard,
        deaf_s=len(missing) * PERIOD_S,
        error=error,
    )


async def scene(name: str, *, ours: bool, http: aiohttp.ClientSession, slots: Path) -> Outcome:
    """A stand-in of its own, with the fault, for one plugin."""
    async with GladiaStandIn(policy=BACKGROUND) as standin:
        for fault, when in FAULTS[name]:
            standin.faults.add(fault, when=when)
        plugin: stt.STT[Any]
        if ours:
            plugin = STT(
                api_key=standin.api_key,
                base_url=standin.base_url,
                http_session=http,
                slots=SessionSlots(slots, 100),
                options=GladiaOptions(endpointing=0.3),
            )
        else:
            plugin = official.STT(
                api_key=standin.api_key,
                base_url=standin.base_url + "/v2/live",
                http_session=http,
                endpointing=0.3,
                maximum_duration_without_endpointing=15,
                languages=["en"],
                code_switching=False,
            )
        return await play(plugin)


async def compare(names: Sequence[str]) -> dict[str, tuple[Outcome, Outcome]]:
    """Each fault for both plugins: (ours, the official one). All at the same time."""
    with tempfile.TemporaryDirectory() as slots:
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            running = {
                (name, ours): tasks.create_task(
                    scene(name, ours=ours, http=http, slots=Path(slots)), name=f"{name}:{ours}"
                )
                for name in names
                for ours in (True, False)
            }
    return {name: (running[name, True].result(), running[name, False].result()) for name in names}


def main() -> None:
    logging.disable(logging.CRITICAL)  # the table is the report
    print(f"{WORDS} words, one each {PERIOD_S} s; faults strike after {FAULT_S} s\n")
    columns = "lost doubled recovered deaf_s  error"
    print(f"{'fault':28} {'roomscribe':>36}{'livekit-plugins-gladia 1.8.9':>44}")
    print(f"{'':28} {columns}   {columns}")
    for name, (ours, theirs) in asyncio.run(compare([*FAULTS])).items():
        print(f"{name:28} {ours!s:38}  {theirs}")


if __name__ == "__main__":
    main()
