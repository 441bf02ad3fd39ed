"""Speech-like audio that counts: each word carries a speaker and a number a machine can read back.

A word is a gliding vowel below 1.5 kHz (so that voice-activity detectors open) with eight quiet
tones of 40 ms between 1.8 and 3.3 kHz: two for synchronisation, one for the speaker, three for the
number, two for a checksum. It survives Opus at 16 kbit/s and is located to a few milliseconds.
A word that was cut, or assembled from pieces, fails its checksum and is not heard; a word that
arrived twice is heard twice.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dev.formants import SAMPLE_RATE, Samples, faded, glide, low_pass

Pcm = npt.NDArray[np.int16]

SPEAKERS = 16
NUMBERS = 4096
SYMBOL_S = 0.04
WORD_S = 8 * SYMBOL_S
"""Seconds: how long one word sounds."""

_SYNC = (0, 15)
_TONES_HZ = 1800 + 100 * np.arange(16)
_TONE_LEVEL = 0.1
_PEAK = 9000
_CARRIER_HZ = 1500
_GLIDES = ("aia", "oeu", "eai", "aou", "uoa", "iea")
_SYMBOL_SAMPLES = int(SYMBOL_S * SAMPLE_RATE)
_WORD_SAMPLES = 8 * _SYMBOL_SAMPLES
_HOP = 80
_HOPS_PER_SYMBOL = _SYMBOL_SAMPLES // _HOP
_DOMINANCE = 0.3
"""Share of a symbol's tone energy that its loudest tone must have: 1/16 in noise, 0.5 in Opus."""
_TEXT = re.compile(r"([a-p])(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Mark:
    """One word: who counted what, and when it sounded (seconds from the start of the audio)."""

    speaker: int
    number: int
    start_s: float
    end_s: float

    @property
    def text(self) -> str:
        return word_text(self.speaker, self.number)


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio with its truth."""

    pcm: Pcm
    sample_rate: int
    marks: tuple[Mark, ...]

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / self.sample_rate


def word_text(speaker: int, number: int) -> str:
    """How a transcript spells it: speaker 0 counting 17 is "a17"."""
    return f"{chr(ord('a') + speaker)}{number}"


def parse(text: str) -> list[tuple[int, int]]:
    """The (speaker, number) pairs in a transcript, in order; other words are ignored."""
    return [(ord(letter) - ord("a"), int(digits)) for letter, digits in _TEXT.findall(text)]


def encode(
    numbers: Iterable[int],
    speaker: int,
    *,
    sample_rate: int = SAMPLE_RATE,
    period_s: float = 0.6,
    lead_s: float = 0.5,
    tail_s: float = 1.0,
    pause_every: int = 0,
    pause_s: float = 1.0,
) -> Recording:
    """The speaker (0..15) counting `numbers` (0..4095), one word each `period_s` (>= 0.36).

    After each `pause_every` words (0: never) there are `pause_s` more seconds of silence. Marks
    are exact. `sample_rate` is a multiple of 16000.
    """
    factor, rest = divmod(sample_rate, SAMPLE_RATE)
    if rest or not factor:
        raise ValueError("sample_rate must be a multiple of 16000")
    marks: list[Mark] = []
    pieces: list[Samples] = []
    position = int(lead_s * SAMPLE_RATE)
    for count, number in enumerate(numbers):
        if pause_every and count and count % pause_every == 0:
            position += int(pause_s * SAMPLE_RATE)
        start_s = position / SAMPLE_RATE
        marks.append(Mark(speaker, number, start_s, start_s + WORD_S))
        pieces.append(_word(speaker, number))
        position += int(period_s * SAMPLE_RATE)
    total = (position + int(tail_s * SAMPLE_RATE)) * factor
    pcm = np.zeros(total, np.int16)
    for mark, piece in zip(marks, pieces, strict=True):
        sound = _upsample(piece, factor)
        start = round(mark.start_s * SAMPLE_RATE) * factor
        pcm[start : start + len(sound)] = sound.round().astype(np.int16)
    return Recording(pcm, sample_rate, tuple(marks))


def decode(pcm: Pcm, sample_rate: int = SAMPLE_RATE) -> list[Mark]:
    """Every intact word in `pcm`, in order of time. `sample_rate` is a multiple of 16000."""
    factor = sample_rate // SAMPLE_RATE
    if factor > 1:
        whole = pcm[: len(pcm) // factor * factor].astype(np.float64)
        pcm = whole.reshape(-1, factor).mean(axis=1).astype(np.int16)
    decoder = Decoder()
    return decoder.feed(pcm) + decoder.flush()


class Decoder:
    """Reads marks out of a stream of 16 kHz samples, in pieces of any size.

    A mark is reported at most 25 ms of audio after its word ended; `flush` reports it at once.
    Holds less than a second of audio. Costs about 0.5 % of a core per stream in real time.
    """

    def __init__(self) -> None:
        self._samples: Pcm = np.zeros(0, np.int16)
        self._position = 0
        self._rows: Samples = np.zeros((0, 16))
        self._row_position = 0
        self._best: tuple[float, Mark] | None = None
        self._reported_s = -1.0
        """Start of the last word reported: it may still match a few milliseconds later."""

    def feed(self, pcm: Pcm) -> list[Mark]:
        """Takes the next samples, returns the marks they completed."""
        self._samples = np.concatenate((self._samples, pcm))
        self._analyse()
        marks: list[Mark] = []
        span = 7 * _HOPS_PER_SYMBOL
        ready = len(self._rows) - span
        if ready <= 0:
            return marks
        for offset in self._candidates(ready):
            marks += self._consider(
                self._rows[offset : offset + span + 1 : _HOPS_PER_SYMBOL],
                self._row_position + int(offset),
            )
        self._rows = self._rows[ready:]
        self._row_position += ready
        if self._best and self._row_position * _HOP / SAMPLE_RATE > self._best[1].start_s + 0.02:
            marks += self.flush()
        return marks

    def flush(self) -> list[Mark]:
        """Reports the word that was complete but might still have been located better."""
        best, self._best = self._best, None
        if best is None:
            return []
        self._reported_s = best[1].start_s
        return [best[1]]

    def _analyse(self) -> None:
        """Tone energies of each 40 ms window, one row per 5 ms."""
        count = (len(self._samples) - _SYMBOL_SAMPLES) // _HOP + 1
        if count <= 0:
            return
        windows = np.lib.stride_tricks.sliding_window_view(self._samples, _SYMBOL_SAMPLES)
        projected = windows[: count * _HOP : _HOP].astype(np.float32) @ _projection()
        energy = projected[:, :16] ** 2 + projected[:, 16:] ** 2
        self._rows = np.concatenate((self._rows, energy))
        self._samples = self._samples[count * _HOP :]

    def _candidates(self, ready: int) -> npt.NDArray[np.intp]:
        """Rows at which both synchronisation tones dominate."""
        share = self._rows / (self._rows.sum(axis=1, keepdims=True) + 1.0)
        first = share[:ready, _SYNC[0]] > _DOMINANCE
        second = share[_HOPS_PER_SYMBOL : ready + _HOPS_PER_SYMBOL, _SYNC[1]] > _DOMINANCE
        return np.flatnonzero(first & second)

    def _consider(self, rows: Samples, row: int) -> list[Mark]:
        """Keeps the best of neighbouring positions; returns a word that is now settled."""
        symbols = [int(symbol) for symbol in rows.argmax(axis=1)]
        share = rows.max(axis=1) / (rows.sum(axis=1) + 1.0)
        if share.min() < _DOMINANCE:
            return []
        read = _read(symbols)
        if read is None:
            return []
        start_s = row * _HOP / SAMPLE_RATE
        if start_s - self._reported_s < WORD_S / 2 and self._reported_s >= 0:
            return []
        mark = Mark(*read, start_s, start_s + WORD_S)
        score = float(np.sqrt(rows.max(axis=1)).sum())
        settled: list[Mark] = []
        if self._best and start_s - self._best[1].start_s > SYMBOL_S:
            settled = self.flush()
        if self._best is None or score > self._best[0]:
            self._best = (score, mark)
        return settled


def shifted(marks: Sequence[Mark], offset_s: float) -> list[Mark]:
    """The same marks, `offset_s` seconds later."""
    return [
        replace(mark, start_s=mark.start_s + offset_s, end_s=mark.end_s + offset_s)
        for mark in marks
    ]


def _symbols(speaker: int, number: int) -> list[int]:
    if not (0 <= speaker < SPEAKERS and 0 <= number < NUMBERS):
        raise ValueError("speaker must be 0..15 and number 0..4095")
    check = _checksum(speaker, number)
    digits = [speaker, number >> 8, number >> 4 & 15, number & 15, check >> 4, check & 15]
    return [*_SYNC, *digits]


def _read(symbols: Sequence[int]) -> tuple[int, int] | None:
    speaker = symbols[2]
    number = symbols[3] << 8 | symbols[4] << 4 | symbols[5]
    if symbols[6] << 4 | symbols[7] != _checksum(speaker, number):
        return None
    return speaker, number


def _checksum(speaker: int, number: int) -> int:
    """CRC-8 (polynomial 0x07) of the two bytes that hold both."""
    value = 0x5A
    for byte in divmod(speaker << 12 | number, 256):
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07 if value & 0x80 else value << 1) & 0xFF
    return value


def _word(speaker: int, number: int) -> Samples:
    time = np.arange(_SYMBOL_SAMPLES) / SAMPLE_RATE
    tones = [
        faded(np.sin(2 * np.pi * _TONES_HZ[symbol] * time), 0.004)
        for symbol in _symbols(speaker, number)
    ]
    return _PEAK * (_carrier(speaker, number % len(_GLIDES)) + _TONE_LEVEL * np.concatenate(tones))


@lru_cache(maxsize=SPEAKERS * len(_GLIDES))
def _carrier(speaker: int, which: int) -> Samples:
    pitch_hz = 105 + 7 * speaker + 5 * which
    return low_pass(glide(_GLIDES[which], WORD_S, pitch_hz, seed=which), _CARRIER_HZ)


@lru_cache(maxsize=1)
def _projection() -> npt.NDArray[np.float32]:
    """Columns: windowed cosines, then sines, of the sixteen tones."""
    phase = 2 * np.pi * np.outer(np.arange(_SYMBOL_SAMPLES) / SAMPLE_RATE, _TONES_HZ)
    window = np.hanning(_SYMBOL_SAMPLES)[:, None]
    return np.hstack((np.cos(phase) * window, np.sin(phase) * window)).astype(np.float32)


def _upsample(sound: Samples, factor: int) -> Samples:
    if factor == 1:
        return sound
    padded = np.fft.irfft(np.fft.rfft(sound), len(sound) * factor)
    return np.asarray(padded * factor, np.float64)
