"""Speech-like audio that counts: each word carries a speaker and a number a machine can read back.

A word is a gliding vowel below 1.5 kHz (so that voice-activity detectors open) with sixteen quiet
symbols of 20 ms above it. A symbol is two tones: the lower tells its place in the word, the upper a
digit. The digits are a Reed-Solomon codeword: two words have at most three of sixteen in common.

Symbols that tell their own place need no exact timing. So a word survives Opus at 16 kbit/s, and
what WebRTC's jitter buffer does on a busy machine: 100 ms lost, repeated or put in, 60 ms taken
out. It is heard if the symbols that fit exceed those that contradict by more than half a word. Of
a word cut in two at most one part is heard; of pieces of several words no other word is made
(sixteen random symbols in their right places: less than once in a million). A word that arrived
twice is heard twice.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import median

import numpy as np
import numpy.typing as npt

from dev.formants import SAMPLE_RATE, Samples, faded, glide, low_pass

Pcm = npt.NDArray[np.int16]

SPEAKERS = 16
NUMBERS = 4096
SYMBOL_S = 0.02
PLACES = 16
"""Symbols in a word."""
WORD_S = PLACES * SYMBOL_S
"""Seconds: how long one word sounds."""

# Neighbours in time are far apart in pitch: between two symbols no third one appears.
_PLACE_HZ = 1700 + 60 * (5 * np.arange(PLACES) % PLACES)
_DIGIT_HZ = 2700 + 60 * np.arange(16)
_TONES_HZ = np.concatenate((_PLACE_HZ, _DIGIT_HZ))
_TONE_LEVEL = 0.08
_PEAK = 9000
_CARRIER_HZ = 1500
_GLIDES = ("aia", "oeu", "eai", "aou", "uoa", "iea")
_SYMBOL_SAMPLES = int(SYMBOL_S * SAMPLE_RATE)
_HOP = 80
_HOPS_PER_SYMBOL = _SYMBOL_SAMPLES // _HOP
_HOP_S = _HOP / SAMPLE_RATE
_DOMINANCE = 0.5
"""Share that the loudest tone of a group must have: at least 0.7 in mid-symbol, also after Opus."""
_FAINT = (0.04 * _TONE_LEVEL * _PEAK * _SYMBOL_SAMPLES / 4) ** 2
"""Energy of a tone that is too quiet to be one of ours."""
_SPREAD = 36
"""Hops: 180 ms, within which symbols must agree on the start of their word."""
_PATIENCE = 8
"""Hops: how long after the end of a word late symbols are awaited."""
_MARGIN = PLACES // 2
"""Right symbols less wrong ones must exceed this."""
_TEXT = re.compile(r"([a-p])(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Mark:
    """One word: who counted what, and when it sounded (seconds from the start of the audio)."""

    speaker: int
    number: int
    start_s: float
    end_s: float
    clarity: float = field(default=1.0, compare=False)
    """Share of its symbols that were heard as they were made, 0.5..1.0."""

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
    """Every word in `pcm` that is certain, in order of time. `sample_rate`: n * 16000."""
    factor = sample_rate // SAMPLE_RATE
    if factor > 1:
        whole = pcm[: len(pcm) // factor * factor].astype(np.float64)
        pcm = whole.reshape(-1, factor).mean(axis=1).astype(np.int16)
    decoder = Decoder()
    return decoder.feed(pcm) + decoder.flush()


class Decoder:
    """Reads marks out of a stream of 16 kHz samples, in pieces of any size.

    A mark is reported at most 65 ms of audio after its word ended; `flush` reports at once what is
    certain already. Holds less than a second of audio. Costs about 0.3 % of a core per stream in
    real time.
    """

    def __init__(self) -> None:
        self._samples: Pcm = np.zeros(0, np.int16)
        self._hop = 0
        """Of the first sample held."""
        self._open: list[_Hearing] = []

    def feed(self, pcm: Pcm) -> list[Mark]:
        """Takes the next samples, returns the marks they completed."""
        self._samples = np.concatenate((self._samples, pcm))
        count = max(0, (len(self._samples) - _SYMBOL_SAMPLES) // _HOP + 1)
        if not count:
            return []
        marks: list[Mark] = []
        for at, place, digit in _symbols_in(self._samples, count):
            marks += self._settle(self._hop + at)
            self._note(self._hop + at - place * _HOPS_PER_SYMBOL, place, digit)
        self._samples = self._samples[count * _HOP :]
        self._hop += count
        return marks + self._settle(self._hop)

    def flush(self) -> list[Mark]:
        """Reports the words that are certain, although more of them might have come."""
        return [mark for hearing in self._open if (mark := hearing.mark())]

    def _note(self, start: int, place: int, digit: int) -> None:
        for hearing in self._open:
            if abs(start - hearing.starts[0]) <= _SPREAD:
                break
        else:
            hearing = _Hearing()
            self._open.append(hearing)
        hearing.add(start, place, digit)

    def _settle(self, hop: int) -> list[Mark]:
        """Closes the words that ended before `hop`."""
        due = [hearing for hearing in self._open if hearing.ends_before(hop)]
        if not due:
            return []
        self._open = [hearing for hearing in self._open if hearing not in due]
        return [mark for hearing in due if (mark := hearing.mark())]


class _Hearing:
    """Symbols that may belong to one word, in the order of their sound; times in hops."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        """Where the word began, as each symbol has it."""
        self._symbols: list[tuple[int, int]] = []
        self._is_reported = False

    def add(self, start: int, place: int, digit: int) -> None:
        self.starts.append(start)
        self._symbols.append((place, digit))

    def ends_before(self, hop: int) -> bool:
        return hop > self.starts[-1] + PLACES * _HOPS_PER_SYMBOL + _PATIENCE

    def mark(self) -> Mark | None:
        """The word, once: if it is certain and was not told before."""
        if self._is_reported:
            return None
        votes = np.zeros((PLACES, 16), np.int16)
        np.add.at(votes, tuple(np.transpose(self._symbols)), 1)
        places = np.flatnonzero(votes.any(axis=1))
        if len(places) <= _MARGIN:
            return None
        digits = votes[places].argmax(axis=1).astype(np.uint8)
        agreement = (_codewords()[places] == digits[:, None]).sum(axis=0, dtype=np.uint8)
        index = int(agreement.argmax())
        right = int(agreement[index])
        if right - (len(places) - right) <= _MARGIN:
            return None
        self._is_reported = True
        word = _codewords()[:, index]
        hops = zip(self.starts, self._symbols, strict=True)
        fitting = [start for start, (place, digit) in hops if word[place] == digit]
        start_s = _near(fitting, fitting[0]) * _HOP_S
        end_s = _near(fitting, fitting[-1]) * _HOP_S + WORD_S
        return Mark(*divmod(index, NUMBERS), start_s, end_s, right / PLACES)


def shifted(marks: Sequence[Mark], offset_s: float) -> list[Mark]:
    """The same marks, `offset_s` seconds later."""
    return [
        replace(mark, start_s=mark.start_s + offset_s, end_s=mark.end_s + offset_s)
        for mark in marks
    ]


def _symbols_in(samples: Pcm, count: int) -> list[tuple[int, int, int]]:
    """The (hop, place, digit) at which one tone of each group dominates, of the first `count`."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, _SYMBOL_SAMPLES)
    projected = windows[: count * _HOP : _HOP].astype(np.float32) @ _projection()
    tones = len(_TONES_HZ)
    energy = (projected[:, :tones] ** 2 + projected[:, tones:] ** 2).reshape(-1, 2, 16)
    loudest = energy.max(axis=2)
    is_clear = (loudest > _DOMINANCE * energy.sum(axis=2) + _FAINT).all(axis=1)
    hops = np.flatnonzero(is_clear)
    places, digits = energy[hops].argmax(axis=2).T.tolist()
    return list(zip(hops.tolist(), places, digits, strict=True))


def _near(starts: Sequence[int], one: int) -> float:
    """The median of those about `one`: the others come from beyond a gap or a hole."""
    return median(start for start in starts if abs(start - one) <= _HOPS_PER_SYMBOL)


@lru_cache(maxsize=1)
def _codewords() -> npt.NDArray[np.uint8]:
    """Column `speaker * 4096 + number`: a polynomial over GF(16) at each of the sixteen places.

    Its coefficients are the four hexadecimal digits of the column.
    """
    index = np.arange(SPEAKERS * NUMBERS)
    words = np.zeros((PLACES, len(index)), np.uint8)
    for shift in (12, 8, 4, 0):
        digit = (index >> shift & 15).astype(np.uint8)
        for place in range(PLACES):
            words[place] = _times(place)[words[place]] ^ digit
    return words


def _times(factor: int) -> npt.NDArray[np.uint8]:
    """Table: the products of 0..15 with `factor` in GF(16), modulo x^4 + x + 1."""
    power, product = np.arange(16), np.zeros(16, np.int64)
    for bit in range(4):
        product ^= power * (factor >> bit & 1)
        power = power << 1 ^ 0b10011 * (power >> 3)
    return product.astype(np.uint8)


def _word(speaker: int, number: int) -> Samples:
    if not (0 <= speaker < SPEAKERS and 0 <= number < NUMBERS):
        raise ValueError("speaker must be 0..15 and number 0..4095")
    digits = _codewords()[:, speaker * NUMBERS + number]
    symbols = [_tone(place) + _tone(PLACES + digit) for place, digit in enumerate(digits)]
    tones = _TONE_LEVEL * np.concatenate(symbols)
    return _PEAK * (_carrier(speaker, number % len(_GLIDES)) + tones)


@lru_cache(maxsize=len(_TONES_HZ))
def _tone(which: int) -> Samples:
    time = np.arange(_SYMBOL_SAMPLES) / SAMPLE_RATE
    return faded(np.sin(2 * np.pi * _TONES_HZ[which] * time), 0.003)


@lru_cache(maxsize=SPEAKERS * len(_GLIDES))
def _carrier(speaker: int, which: int) -> Samples:
    pitch_hz = 105 + 7 * speaker + 5 * which
    return low_pass(glide(_GLIDES[which], WORD_S, pitch_hz, seed=which), _CARRIER_HZ)


@lru_cache(maxsize=1)
def _projection() -> npt.NDArray[np.float32]:
    """Columns: windowed cosines, then sines, of all tones."""
    phase = 2 * np.pi * np.outer(np.arange(_SYMBOL_SAMPLES) / SAMPLE_RATE, _TONES_HZ)
    window = np.hanning(_SYMBOL_SAMPLES)[:, None]
    return np.hstack((np.cos(phase) * window, np.sin(phase) * window)).astype(np.float32)


def _upsample(sound: Samples, factor: int) -> Samples:
    if factor == 1:
        return sound
    padded = np.fft.irfft(np.fft.rfft(sound), len(sound) * factor)
    return np.asarray(padded * factor, np.float64)
