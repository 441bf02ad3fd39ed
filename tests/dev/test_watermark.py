"""Watermarks: exact when clean, whole or nothing when cut, and alive after Opus and past a VAD."""

import shutil
import subprocess

import numpy as np
import pytest
from livekit.local_inference import VAD, VAD_WINDOW_SAMPLES
from livekit.plugins.silero.onnx_model import OnnxModel, new_inference_session

from dev import watermark
from dev.watermark import Pcm

COUNTING = watermark.encode(range(1, 41), 3, pause_every=10)


def test_reads_back_what_was_written() -> None:
    marks = watermark.decode(COUNTING.pcm)
    assert [(mark.speaker, mark.number) for mark in marks] == [(3, n) for n in range(1, 41)]
    for mark, truth in zip(marks, COUNTING.marks, strict=True):
        assert mark.start_s == pytest.approx(truth.start_s, abs=0.006)


@pytest.mark.parametrize("size", [1, 79, 640, 1600, 50_000])
def test_pieces_of_any_size_give_the_same_marks(size: int) -> None:
    pcm = COUNTING.pcm[:48_000]
    decoder = watermark.Decoder()
    marks: list[watermark.Mark] = []
    for start in range(0, len(pcm), size):
        marks += decoder.feed(pcm[start : start + size])
    assert marks + decoder.flush() == watermark.decode(pcm)


def test_no_word_is_heard_twice_wherever_the_audio_begins() -> None:
    """A word that matched 20 ms apart was reported at both places."""
    recording = watermark.encode(range(24), speaker=3, pause_every=6, pause_s=2.0)
    for cut in range(0, 1600, 74):
        decoder = watermark.Decoder()
        marks = []
        for start in range(cut, len(recording.pcm), 1536):
            marks += decoder.feed(recording.pcm[start : start + 1536])
        marks += decoder.flush()
        assert [mark.number for mark in marks] == list(range(24)), cut


def test_every_speaker_and_the_largest_numbers() -> None:
    for speaker in range(watermark.SPEAKERS):
        marks = watermark.decode(watermark.encode([0, 255, 256, 4095], speaker).pcm)
        expected = [(speaker, number) for number in (0, 255, 256, 4095)]
        assert [(mark.speaker, mark.number) for mark in marks] == expected
    with pytest.raises(ValueError, match=r"0\.\.4095"):
        watermark.encode([4096], 0)


def test_a_cut_or_patched_word_is_not_heard_and_a_repeated_one_is_heard_twice() -> None:
    mark, pcm = COUNTING.marks[5], COUNTING.pcm
    middle = int((mark.start_s + mark.end_s) / 2 * 16_000)
    end = int((mark.end_s + 0.1) * 16_000)
    cut = np.concatenate((pcm[: middle - 1600], pcm[middle:]))
    assert (3, mark.number) not in _pairs(cut)
    assert len(_pairs(cut)) == 39
    repeated = np.concatenate((pcm[:end], pcm[end - 16_000 // 2 :]))
    assert _pairs(repeated).count((3, mark.number)) == 2


def test_noise_and_silence_say_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(16_000 * 30) * 3000).astype(np.int16)
    assert watermark.decode(noise) == []
    assert watermark.decode(np.zeros(16_000, np.int16)) == []


def test_transcripts_spell_and_parse() -> None:
    assert COUNTING.marks[16].text == "d17"
    assert watermark.parse("d17 hello p4095 x3 b2.") == [(3, 17), (15, 4095), (1, 2)]


@pytest.mark.parametrize("kbit", [16, 24, 32])
def test_survives_opus_within_20_ms(kbit: int) -> None:
    recording = watermark.encode(range(1, 41), 3, sample_rate=48_000)
    marks = watermark.decode(_through_opus(recording.pcm, kbit))
    assert [mark.number for mark in marks] == list(range(1, 41))
    for mark, truth in zip(marks, recording.marks, strict=True):
        assert mark.start_s == pytest.approx(truth.start_s, abs=0.02)


@pytest.mark.parametrize("speaker", [0, 7, 15])
@pytest.mark.parametrize("kbit", [0, 24])
def test_voice_detectors_take_it_for_speech(speaker: int, kbit: int) -> None:
    """Both back ends: nearly every window of a word is above 0.5, pauses fall below."""
    recording = watermark.encode(range(1, 31), speaker, sample_rate=48_000, pause_every=10)
    pcm = _through_opus(recording.pcm, kbit) if kbit else recording.pcm[::3]
    inside = _inside(recording, len(pcm) // VAD_WINDOW_SAMPLES)
    for probabilities in (_native(pcm), _silero(pcm)):
        assert (probabilities[inside] > 0.5).mean() > 0.9
    first_pause = recording.marks[9].end_s + 0.5
    window = int(first_pause * 16_000 / VAD_WINDOW_SAMPLES)
    assert _native(pcm)[window : window + 10].max() < 0.5


def _pairs(pcm: Pcm) -> list[tuple[int, int]]:
    return [(mark.speaker, mark.number) for mark in watermark.decode(pcm)]


def _inside(
    recording: watermark.Recording, count: int
) -> "np.ndarray[tuple[int], np.dtype[np.bool]]":
    """Windows that lie wholly in a word, its first 32 ms aside."""
    starts = np.arange(count) * VAD_WINDOW_SAMPLES / 16_000
    inside = np.zeros(count, np.bool)
    for mark in recording.marks:
        inside |= (starts >= mark.start_s + 0.032) & (starts + 0.032 <= mark.end_s)
    return inside


def _windows(pcm: Pcm) -> list[Pcm]:
    count = len(pcm) // VAD_WINDOW_SAMPLES
    whole = np.ascontiguousarray(pcm[: count * VAD_WINDOW_SAMPLES])
    return list(whole.reshape(-1, VAD_WINDOW_SAMPLES))


def _native(pcm: Pcm) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    vad = VAD()
    return np.array([vad.predict(window) for window in _windows(pcm)])


def _silero(pcm: Pcm) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    model = OnnxModel(
        onnx_session=new_inference_session(force_cpu=True),
        sample_rate=16_000,
    )
    return np.array([model(window.astype(np.float32) / 32768) for window in _windows(pcm)])


def _through_opus(pcm: Pcm, kbit: int) -> Pcm:
    """48 kHz through libopus in 20 ms voice frames, back as 16 kHz."""
    assert shutil.which("ffmpeg"), "install ffmpeg: apt-get install ffmpeg"
    encoder = ["-c:a", "libopus", "-application", "voip", "-b:a", f"{kbit}k", "-f", "ogg"]
    packets = _ffmpeg(["-f", "s16le", "-ar", "48000", "-ac", "1"], encoder, pcm.tobytes())
    heard = _ffmpeg([], ["-f", "s16le", "-ar", "16000", "-ac", "1"], packets)
    return np.frombuffer(heard, np.int16)


def _ffmpeg(before: list[str], after: list[str], data: bytes) -> bytes:
    command = ["ffmpeg", "-v", "error", *before, "-i", "-", *after, "-"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout
