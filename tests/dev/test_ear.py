"""The ear of the stand-in: what it says of words that were not sent whole."""

from dev import watermark
from dev.gladia.ear import WatermarkListener


async def test_a_word_whose_beginning_was_never_sent_begins_with_the_audio() -> None:
    """No provider tells a time before the first sample."""
    recording = watermark.encode([7], speaker=2)
    start = int(recording.marks[0].start_s * recording.sample_rate)
    for cut_ms in (20, 60, 100):
        listener = WatermarkListener()
        listener.feed(recording.pcm[start + cut_ms * 16 :])
        [word] = await listener.interim()
        assert (word.text, word.start_s) == ("c7", 0.0)
        assert 0.2 < word.end_s < watermark.WORD_S
