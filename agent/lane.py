"""One audio source from PCM to events: voice detection, gate, live transcription, health.

Knows neither rooms nor LiveKit: a microphone feeds it, and so does the fallback ingest.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np

from agent.gladia.live import GladiaAccount, LiveTranscription
from agent.gladia.slots import SessionSlots
from agent.vad import Samples, Vad
from core.audio import SAMPLE_BYTES, seconds
from core.deafness import Deafness
from core.gate import (
    WINDOW_BYTES,
    WINDOW_SAMPLES,
    CloseGate,
    Gate,
    GateCommand,
    GatePolicy,
    OpenGate,
    SendAudio,
    SendSilence,
)
from core.gladia.events import AudioLost, Event, Interim, StateChanged
from core.gladia.events import Final as FinalText
from core.gladia.options import GladiaOptions
from core.status import LaneHealth
from core.unwritten import Unwritten
from core.wire import SpeakerStatus

logger = logging.getLogger(__name__)

QUIET_PEAK: Final = 24
"""Largest sample that is too quiet to be asked about: Silero finds no speech in speech that was
turned down to it (tests/agent/test_vad.py). Two passes over a frame instead of three inferences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """What every lane of a process needs: where to transcribe, how to detect voice."""

    account: GladiaAccount
    slots: SessionSlots
    options: GladiaOptions
    make_vad: Callable[[], Vad]


@dataclass(slots=True)
class LaneCounts:
    """Samples, for the metrics; grows only."""

    heard: int = 0
    sent: int = 0
    """Of the source; trailing zeros are not counted."""
    deaf_alarms: int = 0


@dataclass(slots=True)
class _Carry:
    """Samples that do not fill a window yet."""

    position: int = 0
    pcm: bytes = b""

    @property
    def end(self) -> int:
        return self.position + len(self.pcm) // SAMPLE_BYTES


class Lane:
    """Feed it with `push`, run it with `run`, end it with `drain`.

    `push` never blocks and never raises on provider trouble; `on_event`, `on_status` and `on_deaf`
    (an alarm was raised) are called in the loop's thread. Positions must ascend.
    """

    def __init__(
        self,
        *,
        ears: Ears,
        utterance_prefix: str,
        metadata: Mapping[str, str],
        on_event: Callable[[Event], None],
        on_status: Callable[[], None] = lambda: None,
        on_deaf: Callable[[], None] = lambda: None,
    ) -> None:
        self._ears = ears
        self._prefix = utterance_prefix
        self._metadata = metadata
        self._on_event = on_event
        self._on_status = on_status
        self._on_deaf = on_deaf
        self._vad = ears.make_vad()
        self._vad_is_stale = False
        policy = GatePolicy.for_endpointing(ears.options.endpointing)
        self._gate = Gate(policy)
        self._voice_at = policy.open_at
        self._carry = _Carry()
        self._health = LaneHealth()
        self._unwritten = Unwritten()
        self._deafness = Deafness()
        self.counts = LaneCounts()
        self._live = LiveTranscription(
            options=ears.options,
            account=ears.account,
            slots=ears.slots,
            utterance_prefix=utterance_prefix,
            metadata=metadata,
            on_event=self._event,
        )

    @property
    def is_open(self) -> bool:
        """Whether speech is being sent."""
        return self._gate.is_open

    @property
    def unwritten(self) -> tuple[int, int] | None:
        """Positions between which there was voice of which there is no text yet."""
        return self._unwritten.span

    def status(self, identity: str) -> SpeakerStatus:
        return self._health.status(identity)

    def push(self, position: int, pcm: bytes) -> None:
        """Takes s16le mono 16 kHz of any length; a rest below 32 ms waits for more."""
        self.counts.heard += len(pcm) // SAMPLE_BYTES
        if self._carry.pcm:
            position, pcm = self._with_carry(position, pcm)
        whole = len(pcm) - len(pcm) % WINDOW_BYTES
        if whole < len(pcm):
            self._carry = _Carry(position + whole // SAMPLE_BYTES, pcm[whole:])
            pcm = pcm[:whole]
        if whole:
            self._do(self._gated(position, pcm))

    def shut(self) -> None:
        """Muted, or the source is gone: what was spoken is finished at once."""
        self._finish_carry()
        self._vad_is_stale = True
        self._do(self._gate.shut())

    def missing(self, start: int, end: int) -> None:
        """Speech between these positions never arrived, or not all of it."""
        self._lost(AudioLost(start, end, "network"))

    async def run(self) -> None:
        """Transcribes until `drain`."""
        await self._live.run()

    async def drain(self, timeout_s: float) -> None:
        """Everything pushed before is sent, its finals are awaited; then `run` returns."""
        self.shut()
        await self._live.drain(timeout_s)

    def _with_carry(self, position: int, pcm: bytes) -> tuple[int, bytes]:
        if self._carry.end != position:
            self._finish_carry()
            return position, pcm
        carry, self._carry = self._carry, _Carry()
        return carry.position, carry.pcm + pcm

    def _finish_carry(self) -> None:
        """What does not fill a window is sent if its neighbours were."""
        carry, self._carry = self._carry, _Carry()
        if self._gate.is_open and carry.pcm:
            self._do([SendAudio(carry.position, carry.pcm)])

    def _gated(self, position: int, pcm: bytes) -> list[GateCommand]:
        samples: Samples = np.frombuffer(pcm, np.int16)
        if not self._gate.is_open:
            if samples.max() <= QUIET_PEAK and samples.min() >= -QUIET_PEAK:
                self._vad_is_stale = True
                return self._gate.quiet(position, pcm)
            if self._vad_is_stale:
                self._vad.reset()
                self._vad_is_stale = False
        predict = self._vad.probability
        probabilities = [
            predict(samples[start : start + WINDOW_SAMPLES])
            for start in range(0, len(samples), WINDOW_SAMPLES)
        ]
        commands = self._gate.feed(position, pcm, probabilities)
        if self._gate.is_open and max(probabilities) >= self._voice_at:
            self._unwritten.voice(position, position + len(samples))
        return commands

    def _do(self, commands: list[GateCommand]) -> None:
        for command in commands:
            match command:
                case SendAudio(position, pcm):
                    self._live.push_audio(position, pcm)
                    self._count_voice(len(pcm) // SAMPLE_BYTES)
                case SendSilence(samples):
                    self._live.push_silence(samples)
                case CloseGate():
                    self._live.pause()
                case OpenGate():
                    pass
                case _:
                    assert_never(command)

    def _count_voice(self, samples: int) -> None:
        self.counts.sent += samples
        if not self._health.voice(seconds(samples)):
            return
        self.counts.deaf_alarms += 1
        logger.warning("voice but no words, asking for a new live session")
        unwritten, again_from = self._unwritten.span, self._live.renew("deaf")
        if unwritten is not None and again_from is not None:
            self._deafness.given_up(unwritten, again_from)
        self._on_deaf()
        self._on_status()

    def _lost(self, lost: AudioLost) -> None:
        """Gladia knows nothing of this loss."""
        self._health.lost(seconds(lost.end_position - lost.start_position))
        self._on_event(lost)
        self._on_status()

    def _event(self, event: Event) -> None:
        match event:
            case Interim(utterance) | FinalText(utterance):
                self._health.text()
                self._unwritten.written(utterance.end_position)
                if deaf := self._deafness.text(utterance.start_position):
                    self._lost(AudioLost(*deaf, "deaf"))
            case StateChanged(state, reason):
                self._health.changed(state, reason)
            case AudioLost(start, end, _):
                self._health.lost(seconds(end - start))
                self._unwritten.written(end)
            case _:
                pass
        self._on_event(event)
        if isinstance(event, StateChanged | AudioLost):
            self._on_status()
