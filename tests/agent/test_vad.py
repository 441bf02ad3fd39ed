"""Both voice detectors on real speech, held against each other."""

import numpy as np
import pytest

from agent.lane import QUIET_PEAK
from agent.vad import NativeVad, SileroVad, Vad, make_vad
from core.gate import WINDOW_SAMPLES, GatePolicy
from dev import watermark
from tests.agent.spoken import Pcm, spoken

LOUD = 2000
BOUND = 1e-4
"""Measured: below 1e-5 on this speech at every loudness."""


@pytest.fixture(scope="module")
def speech() -> Pcm:
    text = "The quick brown fox jumps over the lazy dog. We measured every room, and it was cheap."
    return spoken(text)


def probabilities(vad: Vad, pcm: Pcm) -> list[float]:
    return [
        vad.probability(pcm[start : start + WINDOW_SAMPLES])
        for start in range(0, len(pcm) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES)
    ]


@pytest.mark.parametrize("loudness", [1.0, 0.1, 0.01, 0.002])
def test_both_back_ends_say_the_same(speech: Pcm, loudness: float) -> None:
    pcm = (speech * loudness).astype(np.int16)
    native, silero = probabilities(NativeVad(), pcm), probabilities(SileroVad(), pcm)
    assert np.abs(np.subtract(native, silero)).max() < BOUND
    assert len(native) > 100


def test_speech_is_speech_and_noise_is_not(speech: Pcm) -> None:
    noise = np.random.default_rng(7).normal(0, 300, 3 * 16000).astype(np.int16)
    assert np.mean(np.array(probabilities(NativeVad(), speech)) > 0.5) > 0.7
    assert max(probabilities(NativeVad(), noise)) < 0.5


@pytest.mark.parametrize("make", [NativeVad, SileroVad])
def test_reset_makes_it_new(speech: Pcm, make: type[NativeVad | SileroVad]) -> None:
    used = make()
    probabilities(used, speech)
    used.reset()
    assert probabilities(used, speech[:16000]) == probabilities(make(), speech[:16000])


@pytest.mark.parametrize("make", [NativeVad, SileroVad])
def test_a_voice_is_heard_from_the_middle_of_its_sound(make: type[NativeVad | SileroVad]) -> None:
    """The lane resets it at the first loud frame after silence that it was not shown."""
    loud = silent = 0
    for speaker in range(watermark.SPEAKERS):
        pcm = watermark.encode(range(100, 120), speaker, period_s=0.5, lead_s=0.0).pcm
        vad = make()
        vad.reset()
        windows = pcm[: len(pcm) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)
        is_loud = np.abs(windows.astype(np.int32)).max(axis=1) > LOUD
        probable = np.array(probabilities(vad, pcm)) >= GatePolicy().keep_at
        loud += int(is_loud.sum())
        silent += int((is_loud & ~probable).sum())
    assert silent < loud * 0.04


def test_detectors_do_not_share_their_memory(speech: Pcm) -> None:
    one, other = SileroVad(), SileroVad()
    probabilities(other, speech)
    assert probabilities(one, speech[:16000]) == probabilities(SileroVad(), speech[:16000])


def test_what_the_lane_calls_quiet_never_opens_the_gate(speech: Pcm) -> None:
    """Even speech, turned down until its loudest sample is at the limit, is not heard."""
    quiet = (speech * (QUIET_PEAK / np.abs(speech).max())).astype(np.int16)
    assert max(probabilities(NativeVad(), quiet)) < GatePolicy().open_at


def test_the_back_end_can_be_chosen() -> None:
    assert make_vad("native") is NativeVad
    assert make_vad("silero") is SileroVad
