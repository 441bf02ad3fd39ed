"""pocketsphinx inside a worker process: decoders are lent to utterances, one each.

A decoder costs about 95 MB, so there are as many as utterances are open at once, not as many as
speakers; what it has learnt about a speaker's channel (cepstral mean) is kept per listener.
"""

import re
from typing import Final

from pocketsphinx import Decoder

Word = tuple[str, float, float, float]
"""Text, start and end in seconds of the utterance's audio, confidence 0..1."""

_FRAMES_PER_SECOND = 100
_VARIANT = re.compile(r"\(\d+\)$")
_SETTINGS: Final = {
    "samprate": 16000,
    "loglevel": "FATAL",
    "maxhmmpf": 6000,
    "maxwpf": 20,
    "bestpath": True,
}
_NOBODY: Final = -1
_free: list[Decoder] = []
_lent: dict[int, Decoder] = {}
_channels: dict[int, str] = {}
"""Cepstral mean per listener; for a new one that of a new decoder."""


def begin(key: int) -> list[Word]:
    """An utterance of listener `key` begins."""
    decoder = _free.pop() if _free else Decoder(**_SETTINGS)
    fresh = _channels.setdefault(_NOBODY, decoder.get_cmn())
    decoder.set_cmn(_channels.get(key, fresh))
    decoder.start_utt()
    _lent[key] = decoder
    return []


def hear(key: int, audio: bytes) -> list[Word]:
    """The words so far, after `audio` (s16le, 16 kHz, any length)."""
    decoder = _lent[key]
    if audio:
        decoder.process_raw(audio)
    return _words(decoder)


def end(key: int, audio: bytes) -> list[Word]:
    """The words of the whole utterance, after the last `audio`; the decoder is free again."""
    decoder = _lent.pop(key)
    if audio:
        decoder.process_raw(audio)
    decoder.end_utt()
    words = _words(decoder)
    _channels[key] = decoder.get_cmn()
    _free.append(decoder)
    return words


def forget(key: int) -> list[Word]:
    """Listener `key` is gone, possibly in the middle of an utterance."""
    if key in _lent:
        end(key, b"")
    _channels.pop(key, None)
    return []


def _words(decoder: Decoder) -> list[Word]:
    logmath = decoder.logmath
    return [
        (
            _VARIANT.sub("", segment.word),
            segment.start_frame / _FRAMES_PER_SECOND,
            (segment.end_frame + 1) / _FRAMES_PER_SECOND,
            min(1.0, logmath.exp(segment.prob)),
        )
        for segment in decoder.seg() or ()
        if segment.word[0] not in "<[+"
    ]
