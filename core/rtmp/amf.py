"""AMF0, the encoding of RTMP commands: reading with limits, writing what we answer.

Adobe, "Action Message Format -- AMF 0" (2007). AMF3 values are refused: publishers that announce
AMF3 still send AMF0 values behind one zero byte.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from core.errors import RemoteProtocolError
from core.rtmp.limits import Limits

AmfValue: TypeAlias = "float | bool | str | dict[str, AmfValue] | list[AmfValue] | None"

_NUMBER, _BOOLEAN, _STRING, _OBJECT = 0x00, 0x01, 0x02, 0x03
_NULL, _UNDEFINED, _ECMA_ARRAY, _OBJECT_END = 0x05, 0x06, 0x08, 0x09
_STRICT_ARRAY, _DATE, _LONG_STRING = 0x0A, 0x0B, 0x0C


def decode(data: bytes, limits: Limits) -> list[AmfValue]:
    """All values of one command message.

    Raises:
        RemoteProtocolError: cut short, too deep, too many keys, or a type that no publisher sends.
    """
    reader = _Reader(data, limits)
    values: list[AmfValue] = []
    while reader.rest():
        if len(values) == limits.amf_keys:
            raise RemoteProtocolError("amf: too many values in a message")
        values.append(reader.value(depth=0))
    return values


def encode(*values: object) -> bytes:
    """The values one after another: None, bool, int, float, str and mappings with text keys."""
    return b"".join(_encoded(value) for value in values)


class _Reader:
    """A cursor over one message."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._at = 0
        self._limits = limits

    def rest(self) -> int:
        return len(self._data) - self._at

    def value(self, depth: int) -> AmfValue:
        if depth > self._limits.amf_depth:
            raise RemoteProtocolError("amf: nested too deep")
        marker = self._take(1)[0]
        found: AmfValue = None
        if marker == _NUMBER:
            found = self._number()
        elif marker == _BOOLEAN:
            found = self._take(1) != b"\0"
        elif marker in {_STRING, _LONG_STRING}:
            found = self._text(self._uint(2 if marker == _STRING else 4))
        elif marker == _DATE:
            found = self._number()
            self._take(2)  # time zone, reserved and zero
        elif marker not in {_NULL, _UNDEFINED}:
            found = self._container(marker, depth)
        return found

    def _container(self, marker: int, depth: int) -> AmfValue:
        if marker == _OBJECT:
            return self._object(depth)
        if marker == _ECMA_ARRAY:
            self._take(4)  # a hint only: real publishers write 0 here
            return self._object(depth)
        if marker == _STRICT_ARRAY:
            count = self._uint(4)
            if count > self._limits.amf_keys:
                raise RemoteProtocolError("amf: too many items in an array")
            return [self.value(depth + 1) for _ in range(count)]
        raise RemoteProtocolError(f"amf: type {marker:#x} is not accepted")

    def _object(self, depth: int) -> AmfValue:
        found: dict[str, AmfValue] = {}
        for _ in range(self._limits.amf_keys + 1):
            key = self._text(self._uint(2))
            if not key and self.rest() and self._data[self._at] == _OBJECT_END:
                self._at += 1
                return found
            found[key] = self.value(depth + 1)
        raise RemoteProtocolError("amf: too many keys in an object")

    def _number(self) -> float:
        number: float = struct.unpack(">d", self._take(8))[0]
        return number

    def _uint(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _text(self, size: int) -> str:
        return self._take(size).decode("utf-8", "replace")

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise RemoteProtocolError("amf: message cut short")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _encoded(value: object) -> bytes:
    match value:
        case None:
            return bytes([_NULL])
        case bool():
            return bytes([_BOOLEAN, value])
        case int() | float():
            return struct.pack(">Bd", _NUMBER, value)
        case str():
            return bytes([_STRING]) + _counted(value)
        case Mapping():
            pairs = (_counted(str(key)) + _encoded(item) for key, item in value.items())
            return bytes([_OBJECT]) + b"".join(pairs) + bytes([0, 0, _OBJECT_END])
        case Sequence():
            items = b"".join(_encoded(item) for item in value)
            return struct.pack(">BI", _STRICT_ARRAY, len(value)) + items
        case _:
            raise TypeError(f"amf cannot carry {type(value).__name__}")


def _counted(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded
