"""FLV tags as ffmpeg reads them, and media time that no publisher can stretch."""

import pytest

from core import flv
from dev import rtmp


def test_tags_are_read_back_whatever_their_time() -> None:
    tags = [(0, rtmp.AAC_HEADER), (64, b"\xaf\x01abc"), (0xFFFFFF + 5, b"\xaf\x01d")]
    data = flv.HEADER + b"".join(flv.audio_tag(at, body) for at, body in tags)
    assert rtmp.read_flv_audio(data) == tags


@pytest.mark.parametrize(
    ("stamps", "media_ms", "jumps"),
    [
        ([0, 64, 128], [0, 64, 128], 0),
        ([7523, 7587], [0, 64], 0),
        ([0, 2000], [0, 2000], 0),
        ([2**32 - 30, 10], [0, 40], 0),
        ([100, 60, 140], [0, 0, 80], 0),
        ([0, 3_600_000, 3_600_064], [0, 23, 87], 1),
        ([50_000, 0, 64], [0, 23, 87], 1),
    ],
)
def test_media_time_starts_at_zero_and_closes_jumps(
    stamps: list[int], media_ms: list[int], jumps: int
) -> None:
    clock = flv.MediaClock()
    assert [clock.at(stamp) for stamp in stamps] == media_ms
    assert clock.jumps == jumps
