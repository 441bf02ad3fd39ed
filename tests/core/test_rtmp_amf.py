"""AMF0: what is written can be read, and what real publishers write can be read."""

import pytest

from core.errors import RemoteProtocolError
from core.rtmp import Limits, amf

VALUES: list[amf.AmfValue] = [
    None,
    True,
    False,
    0.0,
    -1.5,
    "",
    "ümläut",
    {},
    {"a": 1.0, "b": {"c": None}},
    ["x", 2.0],
]


@pytest.mark.parametrize("value", VALUES)
def test_written_values_are_read_back(value: amf.AmfValue) -> None:
    assert amf.decode(amf.encode(value), Limits()) == [value]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x06", None),
        (b"\x0c\x00\x00\x00\x02hi", "hi"),
        (b"\x0b" + bytes(10), 0.0),
        (b"\x08\x00\x00\x00\x00\x00\x01a\x05\x00\x00\x09", {"a": None}),
        (b"\x02\x00\x01\xff", "\ufffd"),
    ],
)
def test_what_only_others_write_is_read(data: bytes, value: amf.AmfValue) -> None:
    assert amf.decode(data, Limits()) == [value]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\x02\x00\x05ab",
        b"\x03\x00\x01a",
        b"\x03\x00\x01a\x05",
        b"\x0a\x00\x00\x01\x01",
        b"\x07",
        b"\x0f",
        b"\x11\x01",
        b"\x0a\x00\x00\x00\x01" * 40,
    ],
)
def test_broken_values_are_the_peers_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        amf.decode(data, Limits())


def test_writing_something_else_is_our_fault() -> None:
    with pytest.raises(TypeError):
        amf.encode(object())
