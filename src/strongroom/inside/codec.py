"""What crosses the channel: a deterministic subset of CBOR (RFC 8949, section 4.2.1), in frames with a length before.

Values are None, bool, int (64 bits), float, str, bytes, list, tuple (arrives as list) and dict with str keys. Nothing
is ever executed on decoding: no pickle, no object, no tag. Used at both ends.
"""

from __future__ import annotations

import struct

from strongroom.inside.errors import CodecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_FRAME_SIZE = 64 * 1024 * 1024
MAX_DEPTH = 32
_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _SIMPLE = 0, 1, 2, 3, 4, 5, 7
_FALSE, _TRUE, _NULL, _DOUBLE = 0xF4, 0xF5, 0xF6, 0xFB
# One frame may not make the receiver hold far more than it sent: each element costs at least one byte on the wire.


def encode(value: object) -> bytes:
    """The bytes of ``value``. Raises CodecError for what cannot cross."""
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise CodecError("an integer has at most 64 bits: pass it as text")


def _encode(value: object, out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CodecError(f"values nest at most {MAX_DEPTH} deep")
    if value is None:
        out.append(_NULL)
    elif value is True or value is False:
        out.append(_TRUE if value else _FALSE)
    elif isinstance(value, int):
        out += _head(_UINT, int(value)) if value >= 0 else _head(_NINT, -1 - int(value))
    elif isinstance(value, float):
        out.append(_DOUBLE)
        out += struct.pack(">d", value)
    elif isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        out += _head(_BYTES, len(raw)) + raw
    elif isinstance(value, str):
        try:
            raw = value.encode()
        except UnicodeEncodeError:
            raise CodecError("text must be valid Unicode") from None
        out += _head(_TEXT, len(raw)) + raw
    elif isinstance(value, list | tuple):
        out += _head(_ARRAY, len(value))
        for item in value:
            _encode(item, out, depth + 1)
    elif isinstance(value, dict):
        entries = []
        for key, item in value.items():
            if not isinstance(key, str):
                raise CodecError(f"the keys of a dict are str, not {type(key).__name__}")
            head = bytearray()
            _encode(key, head, depth + 1)
            entries.append((bytes(head), item))
        out += _head(_MAP, len(entries))
        for encoded, item in sorted(entries, key=lambda entry: entry[0]):
            out += encoded
            _encode(item, out, depth + 1)
    else:
        raise CodecError(
            f"a {type(value).__name__} cannot cross: pass None, bool, int, float, str, bytes, list or dict"
        )


def decode(data: bytes) -> Any:
    """The value that ``data`` is, whole and in the one form that ``encode`` gives it. Raises CodecError."""
    decoder = _Decoder(data)
    value = decoder.value(0)
    if decoder.at != len(data):
        raise CodecError("bytes follow the value")
    return value


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise CodecError("the value ends early")
        part = self.data[self.at : self.at + size]
        self.at += size
        return part

    def number(self, extra: int) -> int:
        if extra < 24:
            return extra
        if extra > 27:
            raise CodecError("a length of unknown form")
        size = 1 << (extra - 24)
        number = int.from_bytes(self.take(size), "big")
        if number < (24, 1 << 8, 1 << 16, 1 << 32)[extra - 24]:
            raise CodecError("a number is not in its shortest form")
        return number

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise CodecError("text is not UTF-8") from None

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CodecError(f"values nest at most {MAX_DEPTH} deep")
        first = self.take(1)[0]
        major, extra = first >> 5, first & 31
        if major == _SIMPLE:
            if first == _DOUBLE:
                return struct.unpack(">d", self.take(8))[0]
            simple = {_FALSE: False, _TRUE: True, _NULL: None}
            if first not in simple:
                raise CodecError(f"a value of unknown kind {first:#x}")
            return simple[first]
        number = self.number(extra)
        if major == _UINT:
            return number
        if major == _NINT:
            return -1 - number
        if major == _BYTES:
            return self.take(number)
        if major == _TEXT:
            return self.text(number)
        if number > len(self.data) - self.at:
            raise CodecError("the value ends early")
        if major == _ARRAY:
            return [self.value(depth + 1) for _ in range(number)]
        if major == _MAP:
            return self.map(number, depth)
        raise CodecError("tags are not allowed")

    def map(self, number: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        last = b""
        for _ in range(number):
            begin = self.at
            key = self.value(depth + 1)
            encoded = self.data[begin : self.at]
            if not isinstance(key, str):
                raise CodecError("the keys of a dict are text")
            if encoded <= last:
                raise CodecError("the keys of a dict are not in order")
            last = encoded
            found[key] = self.value(depth + 1)
        return found


def frame(value: object) -> bytes:
    """``value`` as a frame: u32 size, little endian, then its bytes. Raises CodecError."""
    data = encode(value)
    if len(data) > MAX_FRAME_SIZE:
        raise CodecError(f"a call carries at most {MAX_FRAME_SIZE} bytes, got {len(data)}: pass it in parts")
    return struct.pack("<I", len(data)) + data


def read_frame(read: Callable[[int], bytes]) -> tuple[bool, Any]:
    """The next frame's value by ``read(n)``, which gives 1 to n bytes or, at the peer's end, none.

    Answers (True, value), or (False, None) at the end between frames. Raises CodecError.
    """
    head = _exactly(read, 4, at_start=True)
    if head is None:
        return False, None
    (size,) = struct.unpack("<I", head)
    if size > MAX_FRAME_SIZE:
        raise CodecError(f"a frame of {size} bytes is larger than {MAX_FRAME_SIZE}")
    data = _exactly(read, size, at_start=False)
    return True, decode(data if data is not None else b"")


def _exactly(read: Callable[[int], bytes], size: int, at_start: bool) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = read(min(size - len(data), 1 << 20))
        if len(part) > size - len(data):
            raise CodecError("more bytes came than were asked for")
        if not part:
            if at_start and not data:
                return None
            raise CodecError("the channel ended within a frame")
        data += part
    return bytes(data)
