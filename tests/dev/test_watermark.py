"""Watermarks: exact when clean, alive after Opus and a jitter buffer, never what was not said."""

import shutil
import subprocess
from functools import lru_cache

import numpy as np
import pytest
from livekit.local_inference import VAD, VAD_WINDOW_SAMPLES
from livekit.plugins.silero.onnx_model import OnnxModel, new_inference_session

from dev import watermark
from dev.formants import SAMPLE_RATE, VOWELS, glide
from dev.watermark import WORD_S, Mark, Pcm

COUNTING = watermark.encode(range(1, 41), 3, pause_every=10)
MEASURED = watermark.encode(range(7, 4096, 41), 11, sample_rate=48_000)
"""A hundred words to damage."""
MS = SAMPLE_RATE // 1000
WORD = int(WORD_S * SAMPLE_RATE)
PATTERN = 20 * MS
"""What a jitter buffer repeats."""
DAMAGE_MS = [
    *(("silenced", length) for length in (20, 60, 100)),
    *(("repeated", length) for length in (20, 60, 100)),
    *(("inserted", length) for length in (10, 30, 60, 100)),
    *(("removed", length) for length in (10, 20, 40, 60)),
]


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


def test_a_repeated_word_is_heard_twice() -> None:
    mark, pcm = COUNTING.marks[5], COUNTING.pcm
    end = int((mark.end_s + 0.1) * SAMPLE_RATE)
    repeated = np.concatenate((pcm[:end], pcm[end - SAMPLE_RATE // 2 :]))
    assert _pairs(repeated).count((3, mark.number)) == 2


@pytest.mark.parametrize("pair", [(0, 1), (17, 1022), (4095, 3)])
def test_of_a_cut_word_at_most_one_part_is_heard(pair: tuple[int, int]) -> None:
    """All cut places; and of two words of which each gives a part, no third is made."""
    one, other = (_word(number) for number in pair)
    pause = np.zeros(SAMPLE_RATE // 2, np.int16)
    for cut in range(0, WORD, 5 * MS):
        apart = _pairs(np.concatenate((pause, one[:cut], pause, one[cut:], pause)))
        is_mostly_whole = max(cut, WORD - cut) >= 0.6 * WORD
        assert apart == [(9, pair[0])] or (apart == [] and not is_mostly_whole), cut
        patched = _pairs(np.concatenate((pause, one[:cut], other[cut:], pause)))
        assert patched in ([], [(9, pair[0])], [(9, pair[1])]), cut


def test_pieces_of_words_make_no_other_word() -> None:
    rng = np.random.default_rng(2)
    recordings = [watermark.encode(rng.integers(0, 4096, 60), k, period_s=0.36) for k in range(5)]
    said = {(mark.speaker, mark.number) for each in recordings for mark in each.marks}
    for longest in (25, 60, 150):
        pieces = []
        for _ in range(90_000 // longest):
            pcm = recordings[rng.integers(5)].pcm
            start, length = rng.integers(len(pcm) - SAMPLE_RATE), rng.integers(5, longest) * MS
            pieces.append(pcm[start : start + length])
        assert set(_pairs(np.concatenate(pieces))) <= said


def test_random_symbols_in_their_right_places_are_no_word() -> None:
    rng = np.random.default_rng(3)
    words = np.stack([_word(int(number)) for number in rng.integers(0, 4096, 200)])
    symbols = words.reshape(200, watermark.PLACES, -1)
    chosen = symbols[rng.integers(0, 200, (500, watermark.PLACES)), np.arange(watermark.PLACES)]
    spaced = np.pad(chosen.reshape(500, -1), ((0, 0), (0, 50 * MS)))
    assert watermark.decode(spaced.ravel()) == []


def test_noise_silence_and_mere_speech_say_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(SAMPLE_RATE * 60) * 3000
    assert watermark.decode(noise.astype(np.int16)) == []
    assert watermark.decode(np.cumsum(noise / 60).astype(np.int16)) == []
    assert watermark.decode(np.zeros(SAMPLE_RATE, np.int16)) == []
    assert watermark.decode(COUNTING.pcm[::-1]) == []
    for seed in range(60):
        vowels = "".join(rng.choice(list(VOWELS), 4))
        voice = glide(vowels, 1.0, rng.uniform(90, 250), seed) * 9000
        assert watermark.decode(voice.astype(np.int16)) == [], vowels


def test_marks_come_soon_and_little_is_held() -> None:
    decoder = watermark.Decoder()
    step = 10 * MS
    heard = []
    for start in range(0, len(COUNTING.pcm), step):
        for mark in decoder.feed(COUNTING.pcm[start : start + step]):
            heard.append(mark)
            assert (start + step) / SAMPLE_RATE - mark.end_s <= 0.08
    assert len(heard) == len(COUNTING.marks)
    stuck = np.resize(_word(5)[2 * PATTERN : 3 * PATTERN], SAMPLE_RATE)
    for _ in range(10):
        assert decoder.feed(stuck) == []
    assert sum(len(hearing.starts) for hearing in decoder._open) < 200


@pytest.mark.parametrize("kbit", [0, 24])
@pytest.mark.parametrize(("kind", "length_ms"), DAMAGE_MS)
def test_survives_what_a_jitter_buffer_does(kind: str, length_ms: int, kbit: int) -> None:
    """Each of a hundred words is damaged at another place; what is not heard is not misheard."""
    rng = np.random.default_rng(length_ms)
    damaged, truth = _damaged(kind, length_ms * MS, _measured(kbit), rng)
    starts = {(mark.speaker, mark.number): mark.start_s for mark in truth}
    marks = watermark.decode(damaged)
    pairs = [(mark.speaker, mark.number) for mark in marks]
    assert len(pairs) >= 0.99 * len(truth)
    assert pairs == [pair for pair in starts if pair in set(pairs)]
    for mark in marks:
        assert mark.start_s == pytest.approx(starts[mark.speaker, mark.number], abs=0.105)


def test_clarity_tells_damage() -> None:
    assert {mark.clarity for mark in watermark.decode(COUNTING.pcm)} == {1.0}
    rng = np.random.default_rng(1)
    damaged, _ = _damaged("silenced", 100 * MS, _measured(0), rng)
    assert 0.5 < max(mark.clarity for mark in watermark.decode(damaged)) < 0.8


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


def _word(number: int) -> Pcm:
    return watermark.encode([number], 9, lead_s=0, period_s=WORD_S, tail_s=0).pcm


@lru_cache
def _measured(kbit: int) -> Pcm:
    return _through_opus(MEASURED.pcm, kbit) if kbit else MEASURED.pcm[::3]


def _damaged(kind: str, length: int, pcm: Pcm, rng: np.random.Generator) -> tuple[Pcm, list[Mark]]:
    """`MEASURED` as `pcm`, each word damaged somewhere; and where each word begins now."""
    pieces: list[Pcm] = []
    truth: list[Mark] = []
    done = made = 0
    for mark in MEASURED.marks:
        truth += watermark.shifted([mark], (made - done) / SAMPLE_RATE)
        taken = 0 if kind == "inserted" else length
        at = int(mark.start_s * SAMPLE_RATE) + int(rng.integers(WORD - taken + 1))
        pattern = np.resize(pcm[at - PATTERN : at], length)
        put = {"silenced": pattern * 0, "removed": pattern[:0]}.get(kind, pattern)
        pieces += [pcm[done:at], put]
        made += at - done + len(put)
        done = at + taken
    return np.concatenate((*pieces, pcm[done:])), truth


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
