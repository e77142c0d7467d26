"""A declarative table of fields, from which a structure of the manual is packed and unpacked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

from strongroom.errors import FormatError

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a structure's table: ``offset`` and ``size`` in bytes.

    ``kind`` is ``number`` (little endian), ``octets`` (kept as bytes), ``reserved`` (must be zero), or a
    structure.
    """

    name: str
    offset: int
    size: int
    kind: str | type[Structure]


def number(name: str, offset: int, size: int) -> Field:
    """An unsigned little-endian number."""
    return Field(name, offset, size, "number")


def octets(name: str, offset: int, size: int) -> Field:
    """Bytes without an order of their own (hashes, identifiers, key material)."""
    return Field(name, offset, size, "octets")


def reserved(offset: int, size: int) -> Field:
    """Bytes that must be zero."""
    return Field(f"reserved_{offset}", offset, size, "reserved")


def part(name: str, offset: int, kind: type[Structure]) -> Field:
    """A structure within the structure."""
    return Field(name, offset, kind.SIZE, kind)


class Structure:
    """A structure of the manual: subclasses are frozen dataclasses with a table ``FIELDS`` that covers
    ``SIZE`` bytes."""

    NAME: ClassVar[str]
    SIZE: ClassVar[int]
    FIELDS: ClassVar[tuple[Field, ...]]

    def pack(self) -> bytes:
        """The structure's bytes. Raises FormatError where a value does not fit its field."""
        image = bytearray(self.SIZE)
        for field in self.FIELDS:
            if field.kind == "reserved":
                continue
            value = getattr(self, field.name)
            if field.kind == "number":
                if not 0 <= value < 1 << (8 * field.size):
                    raise FormatError(f"{self.NAME}.{field.name.upper()} does not fit {field.size} bytes")
                raw = value.to_bytes(field.size, "little")
            elif field.kind == "octets":
                raw = bytes(value)
            else:
                raw = value.pack()
            if len(raw) != field.size:
                raise FormatError(f"{self.NAME}.{field.name.upper()} is {len(raw)} bytes, not {field.size}")
            image[field.offset : field.offset + field.size] = raw
        return bytes(image)

    @classmethod
    def unpack(cls, data: Buffer) -> Self:
        """Read exactly ``SIZE`` bytes. Raises FormatError for another size or a reserved byte that is not
        zero."""
        data = bytes(data)
        if len(data) != cls.SIZE:
            raise FormatError(f"{cls.NAME} is {cls.SIZE} bytes, got {len(data)}")
        values: dict[str, Any] = {}
        for field in cls.FIELDS:
            offset, kind = field.offset, field.kind
            raw = data[offset : offset + field.size]
            if kind == "octets":
                values[field.name] = raw
            elif kind == "number":
                values[field.name] = int.from_bytes(raw, "little")
            elif kind == "reserved":
                if any(raw):
                    raise FormatError(
                        f"{cls.NAME}: reserved bytes {offset} to {offset + field.size - 1} are not zero"
                    )
            else:
                values[field.name] = cast("type[Structure]", kind).unpack(raw)
        return cls(**values)

    def facts(self) -> dict[str, Any]:
        """The members by name, for printing; parts become dictionaries."""
        result: dict[str, Any] = {}
        for field in fields(cast("Any", self)):
            value = getattr(self, field.name)
            result[field.name] = value.facts() if isinstance(value, Structure) else value
        return result

    @classmethod
    def offsets(cls) -> dict[str, tuple[int, int]]:
        """``member -> (size, offset)`` in bytes, without the reserved ones, for comparing with the C side."""
        return {f.name: (f.size, f.offset) for f in cls.FIELDS if f.kind != "reserved"}
