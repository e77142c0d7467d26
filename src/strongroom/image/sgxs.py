"""The SGXS stream: the bytes whose SHA-256 is MRENCLAVE, with unmeasured page data as a record of its own.

Form: Fortanix, ``doc/SGXS.md`` (SGXS and ESGXS); the measured records are those that ECREATE, EADD and
EEXTEND hash (SDM vol. 3D, chapter 40). A record is a header of 64 bytes; EEXTEND and UNMEASRD are followed by
256 bytes of data. We read and write the canonical form only: one ECREATE first, EADD offsets strictly
ascending, chunks inside the page that was added last, none twice. UNSIZED is refused: such a stream has no
measurement yet.
"""

from __future__ import annotations

import hashlib
import mmap
import operator
import re
import struct
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain
from pathlib import Path
from typing import IO, Protocol, Self

from strongroom.errors import FormatError, StrongroomError
from strongroom.isa.flags import EEXTEND_SIZE, PAGE_SIZE, SECINFO_KNOWN, PageType, SecinfoFlags, page_type

HEADER_SIZE = 64
CHUNK_RECORD_SIZE = HEADER_SIZE + EEXTEND_SIZE
CHUNKS = PAGE_SIZE // EEXTEND_SIZE
WHOLE_PAGE_SIZE = HEADER_SIZE + CHUNKS * CHUNK_RECORD_SIZE
ALL_CHUNKS = (1 << CHUNKS) - 1

TAG_ECREATE = b"ECREATE\0"
TAG_EADD = b"EADD\0\0\0\0"
TAG_EEXTEND = b"EEXTEND\0"
TAG_UNMEASURED = b"UNMEASRD"
TAG_UNSIZED = b"UNSIZED\0"

MIN_ENCLAVE_SIZE = 2 * PAGE_SIZE
MAX_ENCLAVE_SIZE = 1 << 46
"""Half of user space on x86-64: more than any CPUID.(EAX=12H,ECX=0):EDX[15:8] says on processors in use."""
MAX_SSA_FRAME_SIZE = 256

_ECREATE = struct.Struct("<8sIQ44s")
_EADD = struct.Struct("<8sQQ40s")
_EADD_KIND = struct.Struct("<Q40s")
_CHUNK = struct.Struct("<8sQ48s")
_SIXTEEN = struct.Struct("<" + "8sQ48s256x" * CHUNKS)
_UNMEASURED_TAGS = (TAG_UNMEASURED,) * CHUNKS
_ZEROS = (bytes(48),) * CHUNKS
_EADD_RUN = re.compile(rb"(?:EADD\0\0\0\0.{16}\0{40})+", re.DOTALL)
MAX_RUN = 256
_LONG_RUN = 32
# The headers of a whole measured page: EADD's, then the chunks'.
_HEADERS = struct.Struct("64s" + "64s256x" * CHUNKS)
_HEADERS_SIZE = HEADER_SIZE * (1 + CHUNKS)
# Stands for bytes 2 to 7 of the offsets, which pages share that lie in the same 64 KiB.
_MARK = b"\xff\xfe\xfd\xfc\xfb\xfa"
_BLOCK = 1 << 16
MAX_PIPE_SIZE = 4 << 30
THREADED_SIZE = 1 << 20
"""Streams from this size on are hashed by a thread while they are checked."""
_PIECE = 1 << 26  # hashed at once: between two the thread must wait for the interpreter's lock


class Hasher(Protocol):
    """What ``hashlib`` objects do."""

    def update(self, data: memoryview, /) -> None:
        """Add bytes."""


@dataclass(frozen=True, slots=True)
class Page:
    """One EADD with its data: ``measured`` and ``present`` have a bit for each 256-byte chunk, lowest
    first."""

    offset: int
    flags: int
    data: bytes | None
    measured: int
    present: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Facts of a whole stream; sizes in bytes, counts in pages."""

    size: int
    ssa_frame_size: int
    pages: int
    measured_pages: int
    partial_pages: int
    unmeasured_data_pages: int
    tcs_count: int
    stream_size: int

    def check_loadable(self) -> None:
        """Raise FormatError unless Linux's SGX_IOC_ENCLAVE_ADD_PAGES can load it: it measures whole pages or
        none."""
        if self.partial_pages:
            raise FormatError(f"{self.partial_pages} pages are measured in part, which Linux cannot load")
        if not self.tcs_count:
            raise FormatError("the stream has no TCS page, so nobody can enter it")


def check_ecreate(size: int, ssa_frame_size: int) -> None:
    """ECREATE's rules for SIZE and SSAFRAMESIZE. Raises FormatError."""
    if size & (size - 1) or not MIN_ENCLAVE_SIZE <= size <= MAX_ENCLAVE_SIZE:
        raise FormatError(f"enclave size {size:#x} is not a power of two from {MIN_ENCLAVE_SIZE:#x} up")
    if not 1 <= ssa_frame_size <= MAX_SSA_FRAME_SIZE:
        raise FormatError(f"SSAFRAMESIZE {ssa_frame_size} is not from 1 to {MAX_SSA_FRAME_SIZE}")


@lru_cache(maxsize=64)
def check_flags(flags: int) -> None:
    """EADD's rules for SECINFO.FLAGS. Raises FormatError."""
    kind = page_type(flags)
    permissions = flags & 0xFF
    if flags & ~SECINFO_KNOWN or permissions & (
        SecinfoFlags.PENDING | SecinfoFlags.MODIFIED | SecinfoFlags.PR
    ):
        raise FormatError(f"SECINFO flags {flags:#x} have reserved bits set")
    if kind == PageType.REG:
        if permissions & SecinfoFlags.W and not permissions & SecinfoFlags.R:
            raise FormatError(f"SECINFO flags {flags:#x}: a page that is writable but not readable")
    elif kind == PageType.TCS:
        if permissions:
            raise FormatError(f"SECINFO flags {flags:#x}: a TCS page takes no permissions")
    else:
        raise FormatError(f"SECINFO flags {flags:#x}: page type {kind} cannot be added")


def ecreate_record(size: int, ssa_frame_size: int) -> bytes:
    """The header that ECREATE hashes."""
    return _ECREATE.pack(TAG_ECREATE, ssa_frame_size, size, bytes(44))


def eadd_record(offset: int, flags: int) -> bytes:
    """The header that EADD hashes: the page's offset and SECINFO's first 48 bytes."""
    return _EADD.pack(TAG_EADD, offset, flags, bytes(40))


def page_records(offset: int, data: bytes | memoryview, measured: bool) -> bytes:
    """The sixteen records of a page's data."""
    tag = TAG_EEXTEND if measured else TAG_UNMEASURED
    view = memoryview(data)
    pieces: list[bytes | memoryview] = []
    for start in range(0, PAGE_SIZE, EEXTEND_SIZE):
        pieces.append(_CHUNK.pack(tag, offset + start, b""))
        pieces.append(view[start : start + EEXTEND_SIZE])
    return b"".join(pieces)


class Writer:
    """Writes a canonical stream to ``file`` (binary) and measures it on the way.

    ``base`` is not part of a stream: offsets count from the enclave's base, in bytes. Raises FormatError.
    """

    def __init__(self, file: IO[bytes], size: int, ssa_frame_size: int = 1) -> None:
        check_ecreate(size, ssa_frame_size)
        self._file = file
        self._size = size
        self._next = 0
        self._hash = hashlib.sha256()
        header = ecreate_record(size, ssa_frame_size)
        self._file.write(header)
        self._hash.update(header)

    def add_page(
        self, offset: int, flags: int, data: bytes | memoryview | None = None, measured: bool = True
    ) -> None:
        """Add a page: ``data`` of 4,096 bytes measured or not, or None for a page of zeros of which only EADD
        counts."""
        if offset % PAGE_SIZE or not 0 <= offset < self._size:
            raise FormatError(f"page offset {offset:#x} is not a page of an enclave of {self._size:#x} bytes")
        if offset < self._next:
            raise FormatError(f"page {offset:#x} comes after a higher one")
        check_flags(flags)
        if data is not None and len(data) != PAGE_SIZE:
            raise FormatError(f"page {offset:#x} has {len(data)} bytes of data, not {PAGE_SIZE}")
        self._next = offset + PAGE_SIZE
        header = eadd_record(offset, flags)
        if data is None:
            self._file.write(header)
            self._hash.update(header)
            return
        records = page_records(offset, data, measured)
        whole = header + records
        self._file.write(whole)
        self._hash.update(whole if measured else header)

    def mrenclave(self) -> bytes:
        """SHA-256 of what was measured so far."""
        return self._hash.copy().digest()


@contextmanager
def mapped(path: Path | str) -> Iterator[memoryview]:
    """The bytes of a file without copying them. Raises StrongroomError where it cannot be read."""
    with _readable(path) as file:
        try:
            area = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):  # empty, a pipe, or a device
            area = None
        if area is None:
            data = file.read(MAX_PIPE_SIZE + 1)
            if len(data) > MAX_PIPE_SIZE:
                raise StrongroomError(
                    f"more than {MAX_PIPE_SIZE >> 30} GiB come from {path}", "name a file in place of a pipe"
                )
            yield memoryview(data)
            return
        try:
            with memoryview(area) as view:
                yield view
        finally:
            with suppress(BufferError):  # an error's traceback still holds a slice; the mapping goes with it
                area.close()


def _readable(path: Path | str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise StrongroomError(f"cannot read {path} ({error.strerror})", "check the path") from error


def read_ecreate(view: memoryview) -> tuple[int, int]:
    """``(size, ssa_frame_size)`` of the stream's first record. Raises FormatError."""
    if len(view) < HEADER_SIZE:
        raise FormatError(f"an SGXS stream starts with a record of {HEADER_SIZE} bytes, got {len(view)}")
    tag, ssa_frame_size, size, zeros = _ECREATE.unpack_from(view, 0)
    if tag == TAG_UNSIZED:
        raise FormatError("the SGXS stream is UNSIZED and cannot be measured: set its size first")
    if tag != TAG_ECREATE:
        raise FormatError("not an SGXS stream: the first record is not ECREATE")
    if any(zeros):
        raise FormatError("ECREATE: reserved bytes are not zero")
    check_ecreate(size, ssa_frame_size)
    return size, ssa_frame_size


def _check_page(offset: int, flags: int, lowest: int, size: int) -> None:
    if offset % PAGE_SIZE:
        raise FormatError(f"EADD offset {offset:#x} is not a multiple of {PAGE_SIZE}")
    if offset < lowest:
        raise FormatError(f"EADD {offset:#x} does not come in ascending order")
    if offset >= size:
        raise FormatError(f"EADD {offset:#x} is outside the enclave's {size:#x} bytes")
    check_flags(flags)


def _bad_record(view: memoryview, position: int) -> FormatError:
    tag = bytes(view[position : position + 8])
    if len(view) - position < HEADER_SIZE:
        return FormatError(f"the SGXS stream ends inside a record at byte {position}")
    if tag == TAG_ECREATE:
        return FormatError(f"a second ECREATE at byte {position}")
    if tag == TAG_EADD:
        return FormatError(f"EADD at byte {position}: reserved bytes are not zero")
    return FormatError(f"unknown SGXS record {tag!r} at byte {position}")


def _read_chunk(view: memoryview, position: int, page: int) -> tuple[int, bool]:
    """``(index, measured)`` of the chunk record at ``position``, which must lie in ``page``."""
    tag, offset, zeros = _CHUNK.unpack_from(view, position)
    if len(view) - position < CHUNK_RECORD_SIZE:
        raise FormatError(f"the SGXS stream ends inside a record at byte {position}")
    if any(zeros):
        raise FormatError(f"chunk record at byte {position}: reserved bytes are not zero")
    if offset % EEXTEND_SIZE or not page <= offset < page + PAGE_SIZE:
        raise FormatError(f"chunk {offset:#x} is not in the page at {page:#x} that was added last")
    return (offset - page) // EEXTEND_SIZE, tag == TAG_EEXTEND


def pages(view: memoryview) -> Iterator[Page]:
    """Every page of the stream with its data, in order. Raises FormatError where the stream is bad.

    The generator yields pages before it has seen the rest: ``scan`` first where half a result would be
    harmful.
    """
    size, _ = read_ecreate(view)
    position = HEADER_SIZE
    end = len(view)
    lowest = 0
    while position < end:
        if end - position < HEADER_SIZE:
            raise _bad_record(view, position)
        tag, offset, flags, zeros = _EADD.unpack_from(view, position)
        if tag != TAG_EADD or any(zeros):
            raise _bad_record(view, position)
        _check_page(offset, flags, lowest, size)
        lowest = offset + PAGE_SIZE
        position += HEADER_SIZE
        measured = present = 0
        data: bytearray | None = None
        while end - position >= HEADER_SIZE and bytes(view[position : position + 8]) in (
            TAG_EEXTEND,
            TAG_UNMEASURED,
        ):
            index, is_measured = _read_chunk(view, position, offset)
            if present >> index & 1:
                raise FormatError(f"chunk {offset + index * EEXTEND_SIZE:#x} appears twice")
            present |= 1 << index
            measured |= is_measured << index
            if data is None:
                data = bytearray(PAGE_SIZE)
            start = index * EEXTEND_SIZE
            data[start : start + EEXTEND_SIZE] = view[position + HEADER_SIZE : position + CHUNK_RECORD_SIZE]
            position += CHUNK_RECORD_SIZE
        yield Page(offset, flags, bytes(data) if data is not None else None, measured, present)


def mrenclave(view: memoryview) -> tuple[Summary, bytes]:
    """Check the whole stream and measure it. Raises FormatError."""
    parts = _Parts()
    if len(view) < THREADED_SIZE:
        summary, digest = scan(view, parts), None
    else:
        with _Ahead(view) as ahead:
            summary = scan(view, parts)
            digest = ahead.digest() if [len(part) for part in parts.found] == [len(view)] else None
    return summary, digest or parts.digest()


class _Parts:
    """Keeps the parts to hash for later."""

    def __init__(self) -> None:
        self.found: list[memoryview] = []

    def update(self, data: memoryview, /) -> None:
        self.found.append(data)

    def digest(self) -> bytes:
        hasher = hashlib.sha256()
        for part in self.found:
            hasher.update(part)
        return hasher.digest()


class _Ahead:
    """Hashes a stream in a thread while it is checked, as if all of it were measured: nearly always it is."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._stopped = False
        self._digest: bytes | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        hasher = hashlib.sha256()
        for start in range(0, len(self._view), _PIECE):
            if self._stopped:
                return
            hasher.update(self._view[start : start + _PIECE])
        self._digest = hasher.digest()

    def digest(self) -> bytes | None:
        """SHA-256 of the whole stream; None where the thread did not come to its end."""
        self._thread.join()
        return self._digest

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()


def scan(view: memoryview, hasher: Hasher) -> Summary:
    """Check the whole stream and feed its measured bytes to ``hasher``. Raises FormatError.

    Same rules as ``pages``, made for speed: whole measured pages are checked many at a time, runs of pages without
    data by one expression. ``hasher`` gets parts as long as they can be: they end where something unmeasured stands.
    """
    size, ssa_frame_size = read_ecreate(view)
    end = len(view)
    position = HEADER_SIZE
    pending = 0  # where the bytes begin that are measured and not hashed yet
    lowest = 0
    count = measured_count = partial = unmeasured_data = tcs = 0
    good_flags: dict[int, bool] = {}  # SECINFO.FLAGS already checked -> is it a TCS
    run = MAX_RUN  # how many whole measured pages to look for at once
    while position < end:
        if end - position < HEADER_SIZE:
            raise _bad_record(view, position)
        tag, offset, flags, zeros = _EADD.unpack_from(view, position)
        if tag != TAG_EADD or any(zeros):
            raise _bad_record(view, position)
        if flags not in good_flags or offset % PAGE_SIZE or offset < lowest or offset >= size:
            _check_page(offset, flags, lowest, size)
            good_flags[flags] = page_type(flags) == PageType.TCS
        lowest = offset + PAGE_SIZE
        count += 1
        tcs += good_flags[flags]
        fitting = min(run, (end - position) // WHOLE_PAGE_SIZE, (size - offset) // PAGE_SIZE)
        if fitting and view[position + HEADER_SIZE : position + HEADER_SIZE + 8] != TAG_EEXTEND:
            fitting = 0
        if fitting:
            fitting = _likely_run(view, position, fitting, offset, flags)
        if fitting and _is_whole_run(view, position, fitting, offset, flags):
            position += fitting * WHOLE_PAGE_SIZE
            lowest = offset + fitting * PAGE_SIZE
            count += fitting - 1
            measured_count += fitting
            tcs += good_flags[flags] * (fitting - 1)
            run = min(8 * run, MAX_RUN)
            continue
        if run > 1 and fitting:  # not what it seemed: look again for a shorter one
            run //= 8
            count -= 1
            tcs -= good_flags[flags]
            lowest = offset
            continue
        position += HEADER_SIZE
        following = view[position : position + 8]
        if following in (TAG_EEXTEND, TAG_UNMEASURED):
            if end - position >= WHOLE_PAGE_SIZE - HEADER_SIZE:
                headers = _SIXTEEN.unpack_from(view, position)
                if (
                    headers[0::3] == _UNMEASURED_TAGS
                    and headers[1::3] == tuple(range(offset, offset + PAGE_SIZE, EEXTEND_SIZE))
                    and headers[2::3] == _ZEROS
                ):
                    hasher.update(view[pending:position])
                    position += WHOLE_PAGE_SIZE - HEADER_SIZE
                    pending = position
                    unmeasured_data += 1
                    continue
            present = measured = 0
            while end - position >= HEADER_SIZE and view[position : position + 8] in (
                TAG_EEXTEND,
                TAG_UNMEASURED,
            ):
                index, is_measured = _read_chunk(view, position, offset)
                if present >> index & 1:
                    raise FormatError(f"chunk {offset + index * EEXTEND_SIZE:#x} appears twice")
                present |= 1 << index
                measured |= is_measured << index
                if not is_measured:
                    hasher.update(view[pending:position])
                    pending = position + CHUNK_RECORD_SIZE
                position += CHUNK_RECORD_SIZE
            if measured == ALL_CHUNKS:
                measured_count += 1
            elif measured:
                partial += 1
            else:
                unmeasured_data += 1
        elif following == TAG_EADD:
            length = _run_without_data(view, position)
            if length:
                words = view[position : position + length * HEADER_SIZE].cast("Q")
                offsets, kinds = words[1::8].tolist(), words[2::8].tolist()
                _check_run(offsets, kinds, lowest, size, good_flags)
                tcs += sum(kinds.count(flags) for flags, is_tcs in good_flags.items() if is_tcs)
                count += length
                lowest = offsets[-1] + PAGE_SIZE
                position += length * HEADER_SIZE
    hasher.update(view[pending:position])
    return Summary(size, ssa_frame_size, count, measured_count, partial, unmeasured_data, tcs, end)


def _is_whole_run(view: memoryview, position: int, count: int, offset: int, flags: int) -> bool:
    """Whether ``count`` pages follow each other from ``position`` on, with one SECINFO and all their chunks in order.

    The records' headers stand at fixed distances. Of a few pages they are picked out and compared with what they must
    be; in a long run each of their words is a column, compared at once.
    """
    area = view[position : position + count * WHOLE_PAGE_SIZE]
    if count >= _LONG_RUN:
        return _columns_hold(area.cast("Q"), count, offset, flags)
    found = b"".join(chain.from_iterable(_HEADERS.iter_unpack(area)))
    wanted = []
    end = offset + count * PAGE_SIZE
    while offset < end:
        stop = min(end, (offset & -_BLOCK) + _BLOCK)
        first, last = (offset % _BLOCK // PAGE_SIZE, (stop - 1) % _BLOCK // PAGE_SIZE + 1)
        part = _block_headers(flags)[first * _HEADERS_SIZE : last * _HEADERS_SIZE]
        wanted.append(part.replace(_MARK, offset.to_bytes(8, "little")[2:]))
        offset = stop
    return found == b"".join(wanted)


def _columns_hold(words: memoryview[int], count: int, offset: int, flags: int) -> bool:
    zeros = memoryview(bytes(8 * count)).cast("Q")
    tags = memoryview(TAG_EEXTEND * count).cast("Q")
    offsets = memoryview(array("Q", range(offset, offset + count * PAGE_SIZE, EEXTEND_SIZE)))
    wanted = [
        (0, memoryview(TAG_EADD * count).cast("Q")),
        (1, offsets[::CHUNKS]),
        (2, memoryview(array("Q", (flags,)) * count)),
        *((place, zeros) for place in range(3, 8)),
    ]
    for index in range(CHUNKS):
        at = (HEADER_SIZE + index * CHUNK_RECORD_SIZE) // 8
        wanted += [(at, tags), (at + 1, offsets[index::CHUNKS])]
        wanted += [(at + place, zeros) for place in range(2, 8)]
    return all(words[place :: WHOLE_PAGE_SIZE // 8] == column for place, column in wanted)


@lru_cache(maxsize=16)
def _block_headers(flags: int) -> bytes:
    """The headers of 64 KiB of whole measured pages, bytes 2 to 7 of their offsets marked."""

    def offset(page: int, index: int) -> bytes:
        return bytes((0, page << 4 | index)) + _MARK

    return b"".join(
        TAG_EADD + offset(page, 0) + _EADD_KIND.pack(flags, bytes(40))
        + b"".join(TAG_EEXTEND + offset(page, index) + bytes(48) for index in range(CHUNKS))
        for page in range(_BLOCK // PAGE_SIZE)
    )  # fmt: skip


def _likely_run(view: memoryview, position: int, most: int, offset: int, flags: int) -> int:
    """How many whole pages seem to follow: the record that would be the last one's stands where it would."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        at = position + (middle - 1) * WHOLE_PAGE_SIZE
        if _EADD.unpack_from(view, at)[:3] == (TAG_EADD, offset + (middle - 1) * PAGE_SIZE, flags):
            low = middle
        else:
            high = middle - 1
    return low


def _run_without_data(view: memoryview, position: int) -> int:
    """How many EADD records from ``position`` are followed by another one, and so have no data for certain."""
    found = _EADD_RUN.match(view, position)
    if found is None:
        raise _bad_record(view, position)
    return (found.end() - position) // HEADER_SIZE - 1


def _check_run(
    offsets: list[int], kinds: list[int], lowest: int, size: int, good_flags: dict[int, bool]
) -> None:
    """``_check_page`` for many pages: all at once where nothing is new, else one by one. Extends ``good_flags``."""
    if (
        reduce(operator.or_, offsets) % PAGE_SIZE == 0
        and lowest <= offsets[0]
        and offsets[-1] < size
        and all(map(operator.lt, offsets, offsets[1:]))
        and good_flags.keys() >= set(kinds)
    ):
        return
    for offset, flags in zip(offsets, kinds, strict=True):
        _check_page(offset, flags, lowest, size)
        good_flags[flags] = page_type(flags) == PageType.TCS
        lowest = offset + PAGE_SIZE
