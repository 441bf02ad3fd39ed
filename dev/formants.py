"""A small formant synthesiser: voiced, speech-like sound without any model or program.

Owns the sound of a voice (glottal pulses through four moving resonances). It never says words;
`dev.watermark` hides numbers in it and `dev.speech` uses it where no espeak-ng is installed.

Voice-activity detectors take moving formants for speech and steady ones not: a gliding vowel such
as "aia" measures 0.9-1.0 on Silero, a steady "a" 0.0 (measured with both back ends).
"""

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

SAMPLE_RATE = 16_000
VOWELS: dict[str, tuple[int, int, int, int]] = {
    "a": (730, 1090, 2440, 3400),
    "e": (530, 1840, 2480, 3500),
    "i": (270, 2290, 3010, 3500),
    "o": (570, 840, 2410, 3300),
    "u": (300, 870, 2240, 3300),
}
"""Hertz: the first four formants."""
_BANDWIDTHS_HZ = (70, 90, 140, 200)
_EDGE_S = 0.02
_OPENING, _CLOSED = 0.4, 0.56
"""Shares of a glottal cycle: while it opens; from where on it is closed."""


def glide(vowels: str, duration_s: float, pitch_hz: float, seed: int) -> Samples:
    """A voice gliding through `vowels`, peak 1.0; the same arguments give the same samples."""
    rng = np.random.default_rng(seed)
    count = int(duration_s * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    sound = _glottis(time, duration_s, pitch_hz, rng)
    knots = np.linspace(0, duration_s, 2 * len(vowels))
    for formant, bandwidth in enumerate(_BANDWIDTHS_HZ):
        targets = np.repeat([VOWELS[vowel][formant] for vowel in vowels], 2)
        sound = _resonate(sound, np.interp(time, knots, targets), bandwidth)
    sound *= 0.75 + 0.25 * np.cos(2 * np.pi * time / 0.16 + np.pi)
    return faded(sound / np.abs(sound).max(), _EDGE_S)


def faded(sound: Samples, edge_s: float) -> Samples:
    """`sound` with linear ramps of `edge_s` seconds at both ends."""
    edge = int(edge_s * SAMPLE_RATE)
    ramp = np.ones(len(sound))
    ramp[:edge] = np.linspace(0, 1, edge)
    ramp[-edge:] = np.minimum(ramp[-edge:], np.linspace(1, 0, edge))
    return sound * ramp


def low_pass(sound: Samples, cutoff_hz: float) -> Samples:
    """`sound` without what lies above `cutoff_hz` (steep, zero phase)."""
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    filtered = np.fft.irfft(spectrum / (1 + (frequency / cutoff_hz) ** 12), len(sound))
    return np.asarray(filtered, np.float64)


def _glottis(
    time: Samples, duration_s: float, pitch_hz: float, rng: np.random.Generator
) -> Samples:
    """Differentiated Rosenberg pulses with a falling pitch, jitter and breath."""
    knots = np.arange(0, duration_s + 0.02, 0.01)
    jitter = np.interp(time, knots, rng.standard_normal(len(knots)))
    contour = 1 + 0.15 * np.sin(np.pi * time / duration_s) - 0.1 * time / duration_s
    cycle = (np.cumsum(pitch_hz * contour * (1 + 0.01 * jitter)) / SAMPLE_RATE) % 1
    opening = 0.5 * (1 - np.cos(np.pi * cycle / _OPENING))
    closing = np.cos(np.pi * (cycle - _OPENING) / (2 * (_CLOSED - _OPENING)))
    shut = np.where(cycle < _CLOSED, closing, 0.0)
    flow = np.where(cycle < _OPENING, opening, shut)
    pulses = np.diff(flow, prepend=flow[0]) * 8
    breath = 0.03 * rng.standard_normal(len(time)) * (0.3 + pulses.clip(0))
    return np.asarray(pulses + breath, np.float64)


def _resonate(sound: Samples, centre_hz: Samples, bandwidth_hz: float) -> Samples:
    """A two-pole filter whose centre moves with each sample."""
    radius = float(np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE))
    feedback = (2 * radius * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE)).tolist()
    damping = radius * radius
    out: list[float] = []
    last = before = 0.0
    for sample, gain in zip(sound.tolist(), feedback, strict=True):
        value = (1 - gain + damping) * sample + gain * last - damping * before
        before, last = last, value
        out.append(value)
    return np.asarray(out)
