"""Every declared audio format arrives at the ears as the same 16 kHz samples."""

import subprocess

import numpy as np
import pytest

from dev import watermark
from dev.gladia.pcm import AudioReader

RECORDING = watermark.encode(range(1, 9), 5, sample_rate=48_000)
FORMATS = {
    "wav/pcm 8": "pcm_u8",
    "wav/pcm 16": "pcm_s16le",
    "wav/pcm 24": "pcm_s24le",
    "wav/pcm 32": "pcm_s32le",
    "wav/alaw 8": "pcm_alaw",
    "wav/ulaw 8": "pcm_mulaw",
}
RAW = {"pcm_u8": "u8", "pcm_s16le": "s16le", "pcm_s24le": "s24le", "pcm_s32le": "s32le"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000])
def test_watermarks_are_read_in_every_format(name: str, rate: int) -> None:
    """Ffmpeg writes the format, so that our reading is held against somebody else's writing."""
    encoding, depth = name.split()
    codec = FORMATS[name]
    audio = _written(codec, rate)
    reader = AudioReader(encoding=encoding, bit_depth=int(depth), sample_rate=rate, channels=1)
    pieces = [
        reader.read(audio[start : start + 1000 * reader.frame_bytes])[0]
        for start in range(0, len(audio), 1000 * reader.frame_bytes)
    ]
    pcm = np.concatenate(pieces)
    assert len(pcm) / 16_000 == pytest.approx(RECORDING.duration_s, abs=0.01)
    marks = watermark.decode(pcm)
    assert [mark.number for mark in marks] == list(range(1, 9))
    for mark, truth in zip(marks, RECORDING.marks, strict=True):
        assert mark.start_s == pytest.approx(truth.start_s, abs=0.011)


def test_a_wav_header_is_tolerated() -> None:
    reader = AudioReader(encoding="wav/pcm", bit_depth=16, sample_rate=16_000, channels=1)
    assert len(reader.read(b"RIFF" + bytes(40) + bytes(3200))[0]) == 1600
    assert len(reader.read(b"RIFF" + bytes(3196))[0]) == 1600


def _written(codec: str, rate: int) -> bytes:
    """The recording as raw `codec` samples, louder, because eight bits are few."""
    container = RAW.get(codec, codec.removeprefix("pcm_"))
    command = ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "48000", "-ac", "1", "-i", "-"]
    command += ["-filter:a", "volume=2.5", "-ar", str(rate), "-c:a", codec, "-f", container, "-"]
    given = RECORDING.pcm.tobytes()
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout
