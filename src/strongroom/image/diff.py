"""Why two images differ: manifest fields, files, pages of the stream. Reads two build folders; trusts none of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from strongroom.errors import FormatError, StrongroomError, UsageError
from strongroom.image import pack, sgxs
from strongroom.image.measure import FACTS_NAME as FACTS
from strongroom.image.measure import SIGNATURE_NAME as SIGNATURE
from strongroom.image.measure import STREAM_NAME as STREAM
from strongroom.image.pack import FILE_NAME as PACK
from strongroom.image.sigstruct import mrsigner, parse

PAGE_SIZE = 4096
_MISSING = "nothing"
MAX_INDEX = 256 << 20


@dataclass(frozen=True)
class FieldChange:
    """A field of the manifest or of the signature."""

    name: str
    one: Any
    two: Any


@dataclass(frozen=True)
class FileChange:
    """A trusted file. ``what``: only in A, only in B, mode, kind, target, size, content.

    ``offset`` is in bytes, of the first 16 KiB chunk whose content differs, or None.
    """

    path: str
    what: str
    offset: int | None = None


@dataclass(frozen=True)
class PageChange:
    """Pages of one region that differ: ``address`` of the first, how many, and what about them."""

    region: str
    address: int
    count: int
    what: str


@dataclass(frozen=True)
class Difference:
    """Everything that differs between A and B. ``same`` is about what is measured."""

    same: bool
    mrenclave_one: bytes
    mrenclave_two: bytes
    fields: list[FieldChange] = field(default_factory=list)
    files: list[FileChange] = field(default_factory=list)
    pages: list[PageChange] = field(default_factory=list)


def diff(one: Path, two: Path) -> Difference:
    """Compare two build folders, or projects that hold one. Raises StrongroomError."""
    first, second = _folder(one), _folder(two)
    facts = _facts(first), _facts(second)
    fields = list(_fields(facts[0].get("manifest"), facts[1].get("manifest"), ""))
    fields += _signatures(first, second)
    files = list(_files(_index(first), _index(second)))
    with sgxs.mapped(first / STREAM) as stream_one, sgxs.mapped(second / STREAM) as stream_two:
        hashes = hashlib.sha256(), hashlib.sha256()
        sgxs.scan(stream_one, hashes[0])
        sgxs.scan(stream_two, hashes[1])
        measured = hashes[0].digest(), hashes[1].digest()
        pages = _pages(stream_one, stream_two, facts) if measured[0] != measured[1] else []
        if measured[0] != measured[1]:
            sizes = sgxs.read_ecreate(stream_one), sgxs.read_ecreate(stream_two)
            if sizes[0] != sizes[1]:
                fields.append(FieldChange("enclave size and SSA frame size", *sizes))
    return Difference(measured[0] == measured[1], *measured, fields, files, pages)


def _folder(path: Path) -> Path:
    for folder in (path, path / "build"):
        if (folder / STREAM).is_file():
            return folder
    raise UsageError(f"{path} holds no built enclave", f"run `strongroom build {path}` first")


def _facts(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FACTS).read_bytes())
    except OSError as error:
        raise StrongroomError(
            f"cannot read {folder / FACTS} ({error.strerror})", "build the image again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{folder / FACTS} is not JSON", "build the image again") from error
    if not isinstance(found, dict):
        raise FormatError(f"{folder / FACTS} is not an object", "build the image again")
    return found


def _fields(one: Any, two: Any, name: str) -> Iterator[FieldChange]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            yield from _fields(
                one.get(key, _MISSING), two.get(key, _MISSING), f"{name}.{key}" if name else key
            )
    elif one != two:
        yield FieldChange(name, one, two)


def _signatures(first: Path, second: Path) -> list[FieldChange]:
    try:
        one, two = (parse((folder / SIGNATURE).read_bytes()) for folder in (first, second))
    except OSError as error:
        raise StrongroomError(
            f"cannot read {error.filename} ({error.strerror})", "build the image again"
        ) from error
    if mrsigner(one) == mrsigner(two):
        return []
    return [FieldChange("MRSIGNER (not measured)", mrsigner(one).hex(), mrsigner(two).hex())]


def _index(folder: Path) -> dict[str, pack.Entry]:
    try:
        with (folder / PACK).open("rb") as file:
            head = file.read(pack.HEADER.size)
            size = pack.index_size(head)
            if size > MAX_INDEX:
                raise FormatError(f"{folder / PACK} has an index of {size} bytes", "build the image again")
            blob = head + file.read(size - len(head))
    except OSError as error:
        raise StrongroomError(
            f"cannot read {folder / PACK} ({error.strerror})", "build the image again"
        ) from error
    return {entry.path: entry for entry in pack.read_index(blob)}


def _files(one: dict[str, pack.Entry], two: dict[str, pack.Entry]) -> Iterator[FileChange]:
    for path in sorted(one.keys() | two.keys()):
        a, b = one.get(path), two.get(path)
        if a is None or b is None:
            yield FileChange(path, "only in B" if a is None else "only in A")
            continue
        for name in ("kind", "mode", "target", "size"):
            if getattr(a, name) != getattr(b, name):
                yield FileChange(path, name)
        if a.chunks != b.chunks:
            at = next(n for n, (x, y) in enumerate(zip_longest(a.chunks, b.chunks)) if x != y)
            yield FileChange(path, "content", at * pack.CHUNK_SIZE)


def _pages(
    one: memoryview, two: memoryview, facts: tuple[dict[str, Any], dict[str, Any]]
) -> list[PageChange]:
    """Both streams side by side, in order of address; neighbours with the same region and change become one."""
    changes: list[PageChange] = []
    left, right = sgxs.pages(one), sgxs.pages(two)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.offset < b.offset):
            assert a is not None
            _add(changes, a.offset, "only in A", facts[0])
            a = next(left, None)
        elif a is None or b.offset < a.offset:
            _add(changes, b.offset, "only in B", facts[1])
            b = next(right, None)
        else:
            if a.flags != b.flags:
                _add(changes, a.offset, f"page type or permissions ({a.flags:#x} and {b.flags:#x})", facts[0])
            elif a.measured != b.measured or (a.measured and a.data != b.data):
                _add(
                    changes, a.offset, "content" if a.measured == b.measured else "what is measured", facts[0]
                )
            a, b = next(left, None), next(right, None)
    return changes


def _add(changes: list[PageChange], address: int, what: str, facts: dict[str, Any]) -> None:
    region = _region(address, facts)
    last = changes[-1] if changes else None
    if (
        last
        and (last.region, last.what) == (region, what)
        and last.address + last.count * PAGE_SIZE == address
    ):
        changes[-1] = PageChange(region, last.address, last.count + 1, what)
    else:
        changes.append(PageChange(region, address, 1, what))


def _region(address: int, facts: dict[str, Any]) -> str:
    """The region's name by ``enclave.json``; ``unknown`` where that does not tell."""
    regions = facts.get("regions")
    for one in regions if isinstance(regions, list) else []:
        start, size = (one.get("address"), one.get("size")) if isinstance(one, dict) else (None, None)
        if isinstance(start, int) and isinstance(size, int) and start <= address < start + size:
            return str(one.get("name", "unknown"))
    return "unknown"
