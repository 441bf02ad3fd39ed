"""The ledger against a decoder that turns each tag's time into samples that name themselves."""

import struct

import pytest

from core import flv
from core.decode_ledger import DecodeLedger
from dev import rtmp

FRAME_MS = 20


class NamingDecoder:
    """Decodes a tag to 20 ms of samples that carry the tag's own number; silence fills gaps."""

    def __init__(self) -> None:
        self._pending = b""
        self._end_ms = 0

    def feed(self, data: bytes) -> bytes:
        self._pending += data
        skip = b"" if self._pending.startswith(b"FLV") else flv.HEADER
        out = b""
        for at_ms, body in rtmp.read_flv_audio(skip + self._pending):
            if body[1] == 0:
                continue
            out += bytes(max(0, at_ms - self._end_ms) * 32)
            out += struct.pack("<h", body[2]) * (16 * FRAME_MS)
            self._end_ms = at_ms + FRAME_MS
        self._pending = b""
        return out


def tag(number: int) -> bytes:
    return b"\xaf\x01" + bytes([number])


def sample_numbers(pcm: bytes) -> list[int]:
    return [value for (value,) in struct.iter_unpack("<h", pcm)]


@pytest.mark.parametrize("die_at", range(1, 12))
@pytest.mark.parametrize("held_back", [0, 5])
def test_a_decoder_may_die_anywhere_and_no_sample_is_lost_or_doubled(
    die_at: int, held_back: int
) -> None:
    """`held_back` tags are inside the decoder, unheard, when it dies."""
    ledger, decoder, heard = DecodeLedger(), NamingDecoder(), bytearray()
    assert ledger.add(0, rtmp.AAC_HEADER, is_header=True)
    decoder.feed(ledger.restart())
    swallowed = 0
    for number in range(1, 20):
        data = ledger.add(7000 + number * FRAME_MS, tag(number), is_header=False)
        if number == die_at + held_back:
            decoder = NamingDecoder()
            data, swallowed = ledger.restart(), 0
        elif number > die_at and number < die_at + held_back:
            swallowed += 1
            continue
        if pcm := ledger.take(decoder.feed(data)):
            assert pcm[0] == len(heard) // 2
            heard += pcm[1]
    assert swallowed == 0
    assert sample_numbers(bytes(heard)) == [n for n in range(1, 20) for _ in range(16 * FRAME_MS)]


def test_giving_the_ring_up_jumps_over_what_was_lost() -> None:
    ledger, decoder = DecodeLedger(), NamingDecoder()
    ledger.add(0, rtmp.AAC_HEADER, is_header=True)
    decoder.feed(ledger.restart())
    ledger.take(decoder.feed(ledger.add(0, tag(1), is_header=False)))
    ledger.add(FRAME_MS, tag(2), is_header=False)
    assert ledger.waiting_ms == 0
    decoder = NamingDecoder()
    decoder.feed(ledger.restart(replay=False))
    taken = ledger.take(decoder.feed(ledger.add(2 * FRAME_MS, tag(3), is_header=False)))
    assert taken is not None
    assert taken[0] == 2 * FRAME_MS * 16
    assert set(sample_numbers(taken[1])) == {3}


def test_nothing_is_decoded_before_the_header_and_a_repeated_one_is_swallowed() -> None:
    ledger = DecodeLedger()
    assert ledger.add(0, tag(1), is_header=False) == b""
    assert not ledger.has_header
    assert ledger.add(0, rtmp.AAC_HEADER, is_header=True)
    assert ledger.add(0, rtmp.AAC_HEADER, is_header=True) == b""


def test_the_ring_holds_what_was_not_heard_up_to_its_bound() -> None:
    ledger = DecodeLedger(ring_bytes=1000)
    ledger.add(0, rtmp.AAC_HEADER, is_header=True)
    for number in range(100):
        ledger.add(number * FRAME_MS, b"\xaf\x01" + bytes(98), is_header=False)
    kept = rtmp.read_flv_audio(ledger.restart())
    assert len(kept) == 1 + 10
    assert ledger.waiting_ms == 99 * FRAME_MS


def test_heard_tags_leave_the_ring_after_two_seconds() -> None:
    ledger, decoder = DecodeLedger(), NamingDecoder()
    ledger.add(0, rtmp.AAC_HEADER, is_header=True)
    decoder.feed(ledger.restart())
    for number in range(1000):
        ledger.take(decoder.feed(ledger.add(number * FRAME_MS, tag(1), is_header=False)))
    kept = rtmp.read_flv_audio(ledger.restart())
    assert 95 <= len(kept) <= 105


def test_half_a_sample_waits_for_its_other_half() -> None:
    ledger = DecodeLedger()
    ledger.add(0, rtmp.AAC_HEADER, is_header=True)
    ledger.restart()
    assert ledger.take(b"\x01") is None
    assert ledger.take(b"\x02\x03") == (0, b"\x01\x02")
    assert ledger.take(b"\x04") == (1, b"\x03\x04")
