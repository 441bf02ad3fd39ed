"""Speech for robots: espeak-ng in voices that the stand-in understands, or a babble of our own.

Without espeak-ng the sound is speech-like and lets a demo be heard, but carries no words.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dev.formants import SAMPLE_RATE, VOWELS, glide
from dev.livekit import cache_dir

Pcm = npt.NDArray[np.int16]

INSTALL_HINT: Final = "install espeak-ng: apt-get install espeak-ng"
_TIMEOUT_S: Final = 30
_SYLLABLE_S: Final = 0.12
_WORD_GAP_S: Final = 0.06
_PEAK: Final = 9000


class Voice(Enum):
    """espeak-ng variant, words per minute, pitch 0..99; Hertz of our own generator.

    The variants are those that pocketsphinx understands best out of twenty that were measured.
    """

    FIRST = ("en-us+f5", 160, 50, 200)
    SECOND = ("en-us+klatt2", 165, 70, 110)
    THIRD = ("en-us+klatt6", 160, 50, 150)

    def __init__(self, variant: str, speed: int, pitch: int, pitch_hz: int) -> None:
        self.variant = variant
        self.speed = speed
        self.pitch = pitch
        self.pitch_hz = pitch_hz


def has_espeak() -> bool:
    """Whether real words can be spoken."""
    return shutil.which("espeak-ng") is not None


def speak(text: str, voice: Voice) -> Pcm:
    """`text` at 16 kHz, mono; the same arguments give the same samples. Cached. Blocks."""
    real = has_espeak()
    recipe = repr((text, voice.value, real)).encode()
    cached = cache_dir(os.environ) / "speech" / f"{hashlib.sha256(recipe).hexdigest()[:24]}.pcm"  # noqa: TID251 - dev is a root
    if cached.exists():
        return np.fromfile(cached, np.int16)
    pcm = _espeak(text, voice) if real else babble(text, voice)
    _write(cached, pcm)
    return pcm


def babble(text: str, voice: Voice) -> Pcm:
    """The generator of ours: the vowels of `text` as one voiced glide per word."""
    pieces: list[Pcm] = []
    for count, word in enumerate(text.lower().split()):
        vowels = _moving([letter for letter in word if letter in VOWELS])
        sound = glide("".join(vowels), _SYLLABLE_S * len(vowels), voice.pitch_hz, seed=count)
        pause_s = _WORD_GAP_S * (5 if word.endswith((".", "?", "!")) else 1)
        pieces.append((sound * _PEAK).astype(np.int16))
        pieces.append(np.zeros(int(pause_s * SAMPLE_RATE), np.int16))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def _moving(vowels: Sequence[str]) -> list[str]:
    """The vowels with others between them: detectors ignore a vowel that stands still."""
    moving = ["a"]
    for vowel in vowels or "e":
        moving += [vowel, "a" if vowel == "i" else "i"]
    return moving


def _espeak(text: str, voice: Voice) -> Pcm:
    command = ["espeak-ng", "-v", voice.variant, "-s", str(voice.speed), "-p", str(voice.pitch)]
    spoken = subprocess.run(
        [*command, "--stdout", text], capture_output=True, check=True, timeout=_TIMEOUT_S
    )
    # The header of a stream carries no true length: read what is there.
    with wave.open(BytesIO(spoken.stdout)) as wav:
        rate = wav.getframerate()
        raw = wav.readframes(len(spoken.stdout))
    samples = np.frombuffer(raw[: len(raw) // 2 * 2], np.int16)
    return _resampled(samples, rate)


def _resampled(samples: Pcm, rate: int) -> Pcm:
    """`samples` at 16 kHz, by cutting the spectrum: exact for a whole recording."""
    count = len(samples) * SAMPLE_RATE // rate
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    sound = np.fft.irfft(spectrum, count) * (count / len(samples))
    return sound.clip(-32768, 32767).astype(np.int16)


def _write(path: Path, pcm: Pcm) -> None:
    """Whole or not at all, however many processes do it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(pcm.tobytes())
    Path(name).replace(path)
