"""``files.pack``: the trusted files of an image, with the index whose hash is measured (C: ``libos/include/pack.h``).

``[index][zero padding to 4096][file data, each file's 4096-aligned]``. The index holds the header, the entries sorted
by path bytes, one SHA-256 for every 16 KiB chunk, and the strings. Offsets in the index are from its start, data
offsets from the file's start. There are no times, owners or other things of the host in it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from strongroom.errors import FormatError, StrongroomError

FILE_NAME = "files.pack"
MAGIC = b"SRPACK01"
VERSION = 1
CHUNK_SIZE = 16384
ALIGN = 4096
KIND_FILE, KIND_DIRECTORY, KIND_SYMLINK = 1, 2, 3
HEADER = struct.Struct("<8sIIIIQQQQQ")
ENTRY = struct.Struct("<IIIIQQIIII")
# C member -> offset, compared with the C header by tests/image/test_pack.py.
HEADER_OFFSETS = {
    "magic": 0, "version": 8, "chunk_size": 12, "entry_count": 16, "chunk_count": 20, "entries_off": 24,
    "chunks_off": 32, "strings_off": 40, "index_size": 48, "data_off": 56,
}  # fmt: skip
ENTRY_OFFSETS = {
    "path": 0, "path_len": 4, "mode": 8, "kind": 12, "size": 16, "data_off": 24, "first_chunk": 32,
    "chunk_count": 36, "target": 40, "target_len": 44,
}  # fmt: skip


@dataclass(frozen=True)
class PackFile:
    """One thing at an inside path. ``source`` is the content, or the host file that has it; None for a directory."""

    path: str
    source: bytes | Path | None = None
    mode: int = 0o644
    target: str | None = None  # of a symbolic link

    @property
    def kind(self) -> int:
        if self.target is not None:
            return KIND_SYMLINK
        return KIND_DIRECTORY if self.source is None else KIND_FILE

    def content(self) -> bytes:
        """The bytes of a file. Raises StrongroomError where the host file cannot be read."""
        if isinstance(self.source, Path):
            try:
                return self.source.read_bytes()
            except OSError as error:
                raise StrongroomError(
                    f"cannot read {self.source} ({error.strerror})", "make it readable, or leave it out"
                ) from error
        return self.source or b""


@dataclass(frozen=True)
class PackResult:
    """What the boot information needs of a pack, and sizes for people (bytes)."""

    index_sha256: bytes
    index_size: int
    file_count: int
    total_size: int
    hashes: dict[str, str]  # inside path -> SHA-256 of the whole file, hex


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def check_path(path: str) -> None:
    """An inside path is absolute, without empty, ``.`` or ``..`` parts and NUL. Raises StrongroomError."""
    parts = path.split("/")
    if path == "/":
        return
    if parts[0] or "\0" in path or any(part in ("", ".", "..") for part in parts[1:]):
        raise StrongroomError(
            f"{path!r} is not a path inside an enclave", "write an absolute path without . and .."
        )


def with_directories(files: Iterable[PackFile]) -> list[PackFile]:
    """Add every directory on the way and sort. Raises StrongroomError for a path that is there twice."""
    by_path: dict[str, PackFile] = {}
    for one in files:
        check_path(one.path)
        other = by_path.get(one.path)
        if other is not None and not (other.kind == one.kind == KIND_DIRECTORY):
            raise StrongroomError(
                f"two files want to be {one.path} inside ({_where(other)} and {_where(one)})",
                "leave one of them out",
            )
        by_path[one.path] = one
    for path in list(by_path):
        while path != "/":
            path = path.rsplit("/", 1)[0] or "/"
            above = by_path.setdefault(path, PackFile(path, mode=0o755))
            if above.kind == KIND_FILE:
                raise StrongroomError(
                    f"{path} would be a file and a directory inside", "leave one of them out"
                )
    return sorted(by_path.values(), key=lambda one: _raw(one.path))


def _where(one: PackFile) -> str:
    return str(one.source) if isinstance(one.source, Path) else "one that Strongroom makes"


def write(files: Iterable[PackFile], out: BinaryIO) -> PackResult:
    """Write a pack to a seekable file. Reads each source once; memory is one file at a time."""
    entries = with_directories(files)
    sizes: list[int] = []
    for one in entries:
        if one.kind != KIND_FILE:
            sizes.append(0)
        elif isinstance(one.source, Path):
            try:
                sizes.append(one.source.stat().st_size)
            except OSError as error:
                raise StrongroomError(
                    f"cannot read {one.source} ({error.strerror})", "make it readable"
                ) from error
        else:
            sizes.append(len(one.content()))
    chunk_total = sum(-(-size // CHUNK_SIZE) for size in sizes)
    entries_off = HEADER.size
    chunks_off = entries_off + ENTRY.size * len(entries)
    strings_off = chunks_off + 32 * chunk_total
    strings = bytearray()
    places: list[tuple[int, int, int, int]] = []
    for one in entries:
        path, target = _raw(one.path), _raw(one.target or "")
        at = strings_off + len(strings)
        strings += path + b"\0"
        target_at = strings_off + len(strings) if target else 0
        if target:
            strings += target + b"\0"
        places.append((at, len(path), target_at, len(target)))
    index_size = strings_off + len(strings)
    data_off = _align(index_size)

    table, chunks = bytearray(), bytearray()
    hashes: dict[str, str] = {}
    cursor = data_off
    for one, size, (at, length, target_at, target_length) in zip(entries, sizes, places, strict=True):
        first, begin = len(chunks) // 32, 0
        if one.kind == KIND_FILE:
            content = one.content()
            if len(content) != size:
                raise StrongroomError(f"{_where(one)} changed while it was read", "build again")
            view = memoryview(content)
            for start in range(0, size, CHUNK_SIZE):
                chunks += hashlib.sha256(view[start : start + CHUNK_SIZE]).digest()
            hashes[one.path] = hashlib.sha256(view).hexdigest()
            if size:
                begin = cursor
                out.seek(cursor)
                out.write(content)
                cursor = _align(cursor + size)
        table += ENTRY.pack(
            at, length, one.mode & 0o7777, one.kind, size, begin, first, len(chunks) // 32 - first, target_at,
            target_length,
        )  # fmt: skip
    header = HEADER.pack(
        MAGIC,
        VERSION,
        CHUNK_SIZE,
        len(entries),
        chunk_total,
        entries_off,
        chunks_off,
        strings_off,
        index_size,
        data_off,
    )
    index = header + bytes(table) + bytes(chunks) + bytes(strings)
    out.seek(0)
    out.write(index)
    end = out.seek(0, 2)
    out.write(bytes(cursor - end))
    return PackResult(hashlib.sha256(index).digest(), index_size, len(hashes), cursor, hashes)


def _align(value: int) -> int:
    return (value + ALIGN - 1) & -ALIGN


@dataclass(frozen=True)
class Entry:
    """One entry read back. ``chunks`` are the SHA-256 digests of its 16 KiB chunks."""

    path: str
    mode: int
    kind: int
    size: int
    data_off: int
    chunks: tuple[bytes, ...]
    target: str


def index_size(head: bytes) -> int:
    """How many bytes the index has, by its first 64. Raises FormatError."""
    if len(head) < HEADER.size or head[:8] != MAGIC:
        raise FormatError("not a file pack", "build the image again")
    size: int = HEADER.unpack_from(head)[8]
    return size


def read_index(blob: bytes) -> Iterator[Entry]:
    """Parse an index (the file's start; more bytes may follow). Raises FormatError; all of it is checked first."""
    try:
        yield from list(_read(blob))
    except (struct.error, ValueError) as error:
        raise FormatError(f"the file pack is damaged ({error})", "build the image again") from error


def _read(blob: bytes) -> Iterator[Entry]:
    (magic, version, chunk_size, count, chunk_count, entries_off, chunks_off, strings_off, index_size,
     data_off) = HEADER.unpack_from(blob)  # fmt: skip
    if magic != MAGIC or version != VERSION or chunk_size != CHUNK_SIZE:
        raise ValueError("magic, version or chunk size")
    if not (
        entries_off == HEADER.size
        and chunks_off == entries_off + ENTRY.size * count
        and strings_off == chunks_off + 32 * chunk_count
        and strings_off <= index_size <= len(blob)
        and data_off == _align(index_size)
    ):
        raise ValueError("offsets")
    before = b""
    next_chunk = 0
    for number in range(count):
        at, length, mode, kind, size, begin, first, chunks, target_at, target_length = ENTRY.unpack_from(
            blob, entries_off + ENTRY.size * number
        )
        path = _string(blob, at, length, strings_off, index_size)
        if path <= before:
            raise ValueError("order")
        before = path
        if kind not in (KIND_FILE, KIND_DIRECTORY, KIND_SYMLINK) or (kind != KIND_FILE and size):
            raise ValueError("kind")
        if first != next_chunk or chunks != -(-size // CHUNK_SIZE) or first + chunks > chunk_count:
            raise ValueError("chunks")
        if size and (begin < data_off or begin % ALIGN):
            raise ValueError("data offset")
        next_chunk = first + chunks
        target = (
            _string(blob, target_at, target_length, strings_off, index_size) if kind == KIND_SYMLINK else b""
        )
        digests = tuple(
            blob[chunks_off + 32 * at : chunks_off + 32 * at + 32] for at in range(first, first + chunks)
        )
        yield Entry(
            path.decode("utf-8", "surrogateescape"), mode, kind, size, begin, digests,
            target.decode("utf-8", "surrogateescape"),
        )  # fmt: skip
    if next_chunk != chunk_count:
        raise ValueError("chunk count")


def _string(blob: bytes, at: int, length: int, low: int, high: int) -> bytes:
    if at < low or at + length + 1 > high or blob[at + length] != 0:
        raise ValueError("string")
    return blob[at : at + length]


def read_file(blob: bytes, entry: Entry) -> bytes:
    """The content of ``entry`` out of a whole pack, each chunk checked. Raises FormatError."""
    content = blob[entry.data_off : entry.data_off + entry.size] if entry.size else b""
    got = tuple(
        hashlib.sha256(content[start : start + CHUNK_SIZE]).digest()
        for start in range(0, len(content), CHUNK_SIZE)
    )
    if len(content) != entry.size or got != entry.chunks:
        raise FormatError(f"{entry.path} in the file pack was altered", "build the image again")
    return content
