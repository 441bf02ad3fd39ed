"""Which audio of a microphone is worth sending: speech, a little before it and a little after it.

Gladia bills each second it receives, and a noisy pause costs as much as a sentence. But it ends
utterances by silence *in the audio*, so a gate that only cuts makes it swallow short utterances
and batch long ones (pipecat-ai/pipecat#3405). Hence a pre-roll before each opening, a hangover
after the last speech, and zeros at the close, which are sent at once and end the utterance.

Speech probabilities come from outside (`agent.vad`), one per window of 512 samples, which is
what Silero takes at 16 kHz.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from core.audio import SAMPLE_BYTES, samples

WINDOW_SAMPLES: Final = 512
"""Samples that get one speech probability: 32 ms."""
WINDOW_BYTES: Final = WINDOW_SAMPLES * SAMPLE_BYTES
_ENDPOINTING_MARGIN_S: Final = 0.2
_MIN_TRAILING_S: Final = 0.5
_QUIET_PEAK: Final = 1000
"""Samples that stay below it, -30 dBFS, are no syllable, or one at its end."""


@dataclass(frozen=True, slots=True)
class OpenGate:
    """Audio follows, from `position` on."""

    position: int


@dataclass(frozen=True, slots=True)
class SendAudio:
    """Samples of the source; positions ascend and never overlap what was sent before."""

    position: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SendSilence:
    """Zeros that are not on the source's time line."""

    samples: int


@dataclass(frozen=True, slots=True)
class CloseGate:
    """Nothing follows until the next `OpenGate`."""


GateCommand: TypeAlias = OpenGate | SendAudio | SendSilence | CloseGate


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """When the gate opens and closes. Times in seconds, rounded up to whole windows."""

    open_at: float = 0.5
    """Probability at which a window counts as speech while the gate is closed."""
    keep_at: float = 0.35
    """Probability at which a window keeps an open gate open."""
    open_windows: int = 2
    """Consecutive windows of speech that open the gate; one alone is a click."""
    preroll_s: float = 0.5
    """Audio before the opening that is sent with it: soft onsets, and context for Gladia."""
    hangover_s: float = 0.7
    """Audio without speech that is still sent; a shorter pause does not close the gate."""
    patience_s: float = 0.5
    """How much longer it waits for a moment of quiet: detectors lose a voice in mid-word at times,
    and zeros there would cut the word in two."""
    trailing_s: float = _MIN_TRAILING_S
    """Zeros at the close; must exceed Gladia's `endpointing`."""

    @classmethod
    def for_endpointing(cls, endpointing_s: float) -> "GatePolicy":
        """The usual policy, with zeros enough to end an utterance under that option."""
        return cls(trailing_s=max(_MIN_TRAILING_S, endpointing_s + _ENDPOINTING_MARGIN_S))


class Gate:
    """Turns windows with probabilities into commands. Holds at most the pre-roll.

    Feed it in ascending positions; a jump is allowed anywhere. Audio sent is sent once: the
    pre-roll never reaches back over it.
    """

    def __init__(self, policy: GatePolicy | None = None) -> None:
        self._policy = policy or GatePolicy()
        self._preroll_windows = _windows(self._policy.preroll_s) + self._policy.open_windows
        self._hangover_windows = _windows(self._policy.hangover_s)
        self._longest_windows = _windows(self._policy.hangover_s + self._policy.patience_s)
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=self._preroll_windows)
        self._voiced = 0
        """Consecutive windows of speech while closed."""
        self._unvoiced = 0
        """Consecutive windows without speech while open."""
        self._open = False

    @property
    def is_open(self) -> bool:
        return self._open

    def feed(self, position: int, pcm: bytes, probabilities: Sequence[float]) -> list[GateCommand]:
        """Takes whole windows, one probability each, and says what to send.

        Args:
            position: of the first sample.
            pcm: s16le; `len(probabilities)` windows.
            probabilities: 0 for a window that was too quiet to ask.
        """
        assert len(pcm) == len(probabilities) * WINDOW_BYTES, "whole windows only"
        if self._open and min(probabilities, default=0.0) >= self._policy.keep_at:
            self._unvoiced = 0
            return [SendAudio(position, pcm)]
        commands: list[GateCommand] = []
        for index, probability in enumerate(probabilities):
            window = pcm[index * WINDOW_BYTES : (index + 1) * WINDOW_BYTES]
            commands += self._window(position + index * WINDOW_SAMPLES, window, probability)
        return _joined(commands)

    def quiet(self, position: int, pcm: bytes) -> list[GateCommand]:
        """The same for windows that are all too quiet to be speech: cheap while closed."""
        if self._open or self._voiced:
            return self.feed(position, pcm, (0.0,) * (len(pcm) // WINDOW_BYTES))
        for offset in range(0, len(pcm), WINDOW_BYTES):
            window = pcm[offset : offset + WINDOW_BYTES]
            self._recent.append((position + offset // SAMPLE_BYTES, window))
        return []

    def shut(self) -> list[GateCommand]:
        """Muted, or the track is gone: closes at once and forgets the pre-roll."""
        self._recent.clear()
        self._voiced = 0
        return self._closing() if self._open else []

    def _window(self, position: int, pcm: bytes, probability: float) -> list[GateCommand]:
        if self._open:
            return self._while_open(position, pcm, probability)
        self._recent.append((position, pcm))
        self._voiced = self._voiced + 1 if probability >= self._policy.open_at else 0
        return self._opening() if self._voiced >= self._policy.open_windows else []

    def _while_open(self, position: int, pcm: bytes, probability: float) -> list[GateCommand]:
        self._unvoiced = 0 if probability >= self._policy.keep_at else self._unvoiced + 1
        sent: list[GateCommand] = [SendAudio(position, pcm)]
        if self._unvoiced < self._hangover_windows:
            return sent
        is_time = self._unvoiced >= self._longest_windows or _is_quiet(pcm)
        return sent + self._closing() if is_time else sent

    def _opening(self) -> list[GateCommand]:
        self._open, self._voiced, self._unvoiced = True, 0, 0
        oldest = self._recent[-1][0] - (self._preroll_windows - 1) * WINDOW_SAMPLES
        recent = [(position, pcm) for position, pcm in self._recent if position >= oldest]
        self._recent.clear()
        audio = (SendAudio(position, pcm) for position, pcm in recent)
        return [OpenGate(recent[0][0]), *audio]

    def _closing(self) -> list[GateCommand]:
        self._open = False
        return [SendSilence(samples(self._policy.trailing_s)), CloseGate()]


def _is_quiet(pcm: bytes) -> bool:
    values = memoryview(pcm).cast("h")
    return max(values) < _QUIET_PEAK and min(values) > -_QUIET_PEAK


def _windows(duration_s: float) -> int:
    return -(-samples(duration_s) // WINDOW_SAMPLES)


def _joined(commands: list[GateCommand]) -> list[GateCommand]:
    """Adjoining audio as one command."""
    joined: list[GateCommand] = []
    run: list[bytes] = []
    start = end = 0
    for command in commands:
        if isinstance(command, SendAudio) and run and command.position == end:
            run.append(command.pcm)
        else:
            if run:
                joined.append(SendAudio(start, b"".join(run)))
                run = []
            if not isinstance(command, SendAudio):
                joined.append(command)
                continue
            start, run = command.position, [command.pcm]
        end = command.position + len(command.pcm) // SAMPLE_BYTES
    if run:
        joined.append(SendAudio(start, b"".join(run)))
    return joined
