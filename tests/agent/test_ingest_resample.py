"""The downsampler: one tone in, the same tone out; cuts change nothing; aliases are gone."""

import numpy as np
import pytest

from agent.ingest.resample import Downsampler
from tests.agent.ingest_kit import loudness, tone_at


def stereo(hz: float, seconds: float = 1.0) -> bytes:
    tone = 10_000 * np.sin(2 * np.pi * hz * np.arange(int(48_000 * seconds)) / 48_000)
    return np.repeat(tone.astype(np.int16), 2).tobytes()


@pytest.mark.parametrize("hz", [100, 440, 1000, 3000, 6000])
def test_speech_passes_unchanged(hz: float) -> None:
    out = Downsampler().push(stereo(hz))
    assert len(out) == 32_000
    assert tone_at(out, 0.5) == pytest.approx(hz, abs=5)
    assert loudness(out, 0.1, 0.9) == pytest.approx(10_000 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("hz", [9_500, 12_000, 20_000])
def test_what_16_khz_cannot_carry_is_removed(hz: float) -> None:
    assert loudness(Downsampler().push(stereo(hz)), 0.1, 0.9) < 10


@pytest.mark.parametrize("cut", [1, 7, 1920, 5000])
def test_cuts_change_nothing(cut: int) -> None:
    pcm = stereo(700, 0.3)
    pieces = Downsampler()
    whole = Downsampler().push(pcm)
    parts = b"".join(pieces.push(pcm[at : at + cut]) for at in range(0, len(pcm), cut))
    assert parts == whole


def test_both_channels_count() -> None:
    left_only = np.zeros((48_000, 2), np.int16)
    left_only[:, 0] = np.frombuffer(stereo(440), np.int16)[::2]
    assert loudness(Downsampler().push(left_only.tobytes()), 0.1, 0.9) > 3000
