"""Enclaves signed with Intel's SDK: from the ELF file and its metadata to the pages that its loader adds.

Facts from intel/linux-sgx: ``common/inc/internal/metadata.h`` (the structures; versions 1.3 to 2.x share the
members used here), ``psw/urts/loader.cpp`` (order of the pages) and ``psw/urts/parser/elfparser.cpp`` (which
segments). The file is other people's: every offset is checked before it is used, and work is bounded by the
enclave's own size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from strongroom.errors import FormatError
from strongroom.image.sgxs import check_ecreate, check_flags
from strongroom.image.sigstruct import parse
from strongroom.isa.flags import PAGE_SIZE, PageType, secinfo_flags
from strongroom.isa.sigstruct import Sigstruct

METADATA_MAGIC = 0x86A80294635D0E4C
NOTE_NAME = b"sgx_metadata\0"
SECTION_NAME = b".note.sgxmeta"
MAX_PAGES = 1 << 22
"""16 GiB of pages: more than any EPC these files were made for."""
GROUP_FLAG = 1 << 12
ATTRIBUTE_EADD = 1
ATTRIBUTE_EEXTEND = 2
FLAGS_TCS = secinfo_flags(PageType.TCS)

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
_METADATA = struct.Struct("<QQIIIIIIQ16s1808sIIII")
_ENTRY = struct.Struct("<HHIQIIQ")
_GROUP = struct.Struct("<HHIQ16x")
_PATCH = struct.Struct("<QII16x")
_RELA = struct.Struct("<QQq")
_DYN = struct.Struct("<QQ")

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_TEXTREL, DT_JMPREL = 0, 2, 7, 8, 22, 23


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD entry: offsets, addresses and sizes in bytes; ``flags`` is PF_X 1, PF_W 2, PF_R 4."""

    offset: int
    address: int
    file_size: int
    memory_size: int
    flags: int


@dataclass(frozen=True, slots=True)
class AddedPage:
    """A page as the SDK's loader adds it: ``data`` None stands for zeros."""

    offset: int
    flags: int
    data: bytes | None
    extended: bool


@dataclass(frozen=True)
class SignedObject:
    """What a signed shared object says about itself."""

    version: tuple[int, int]
    enclave_size: int
    ssa_frame_size: int
    tcs_policy: int
    misc_select: int
    sigstruct: Sigstruct
    segments: tuple[Segment, ...]
    metadata: bytes
    patch: tuple[int, int]
    layout: tuple[int, int]
    relocated_pages: frozenset[int]

    def pages(self, image: memoryview) -> Iterator[AddedPage]:
        """Every page in the loader's order. Raises FormatError, possibly after some pages."""
        budget = min(self.enclave_size // PAGE_SIZE, MAX_PAGES)
        for page in self._all_pages(self._patched(image)):
            budget -= 1
            if budget < 0:
                raise FormatError("the metadata lays out more pages than the enclave has")
            if page.offset % PAGE_SIZE or not 0 <= page.offset < self.enclave_size:
                raise FormatError(
                    f"the metadata puts a page at {page.offset:#x}, which is not in the enclave"
                )
            check_flags(page.flags)
            yield page

    def _patched(self, image: memoryview) -> bytes:
        """The file with the patch table applied, as the loader sees it."""
        result = bytearray(image)
        for target, source, size in _PATCH.iter_unpack(self._table(self.patch, _PATCH.size, "patch")):
            if target + size > len(result):
                raise FormatError("a patch of the metadata is outside the file")
            result[target : target + size] = self._content(source, size)
        return bytes(result)

    def _content(self, offset: int, size: int) -> bytes:
        if offset < _METADATA.size or offset + size > len(self.metadata):
            raise FormatError("the metadata points outside itself")
        return self.metadata[offset : offset + size]

    def _table(self, directory: tuple[int, int], row: int, what: str) -> bytes:
        table = self._content(*directory) if directory[1] else b""
        if len(table) % row:
            raise FormatError(f"the metadata's {what} table is no whole number of rows")
        return table

    def _all_pages(self, image: bytes) -> Iterator[AddedPage]:
        last: Segment | None = None
        for segment in self.segments:
            if last is not None and self.version == (1, 3):
                yield from _trailing_page(last, segment.address)
            if last is None or segment.address > last.address:
                last = segment
            yield from self._region(
                segment.address,
                image[segment.offset : segment.offset + segment.file_size],
                segment.memory_size,
                _segment_flags(segment),
                self.relocated_pages,
            )
        if last is not None and self.version == (1, 3):
            yield from _trailing_page(last, None)
        table = self._table(self.layout, _ENTRY.size, "layout")
        for index in range(0, len(table), _ENTRY.size):
            kind, entries, times, step = _GROUP.unpack_from(table, index)
            if not kind & GROUP_FLAG:
                yield from self._entry(table, index, 0)
                continue
            first = index - entries * _ENTRY.size
            if first < 0:
                raise FormatError("a group of the metadata's layout reaches before the table")
            for time in range(1, times + 1):
                for member in range(first, index, _ENTRY.size):
                    if _GROUP.unpack_from(table, member)[0] & GROUP_FLAG:
                        raise FormatError("a group of the metadata's layout holds another group")
                    yield from self._entry(table, member, time * step)
                if time * step > self.enclave_size or not entries:
                    raise FormatError("a group of the metadata's layout reaches outside the enclave")

    def _entry(self, table: bytes, index: int, delta: int) -> Iterator[AddedPage]:
        _, attributes, count, address, content_size, content_offset, flags = _ENTRY.unpack_from(table, index)
        if not attributes & ATTRIBUTE_EADD:
            return
        address += delta
        data: bytes | None = None
        if content_offset:
            content = self._content(content_offset, content_size)
            if flags != FLAGS_TCS:
                yield from self._region(address, content, count * PAGE_SIZE, flags, frozenset())
                return
            data = _place_tcs(content, address)
        elif not flags:
            return  # a guard page
        elif content_size:
            data = content_size.to_bytes(4, "little") * (PAGE_SIZE // 4)
        extended = bool(attributes & ATTRIBUTE_EEXTEND)
        for page in range(count):
            yield AddedPage(address + page * PAGE_SIZE, flags, data, extended)

    def _region(
        self, address: int, content: bytes, memory_size: int, flags: int, relocated: frozenset[int]
    ) -> Iterator[AddedPage]:
        """A segment: pages with content one by one, then zeros up to ``memory_size``, all of them
        measured."""
        if address + memory_size > self.enclave_size or len(content) > memory_size:
            raise FormatError("a segment is larger than the enclave or than its own memory")
        done = 0
        while done < len(content):
            start = address + done
            within = start % PAGE_SIZE
            piece = content[done : done + PAGE_SIZE - within]
            data = (bytes(within) + piece).ljust(PAGE_SIZE, b"\0")
            writable = 2 if start // PAGE_SIZE in relocated else 0
            yield AddedPage(start - within, flags | writable, data, True)
            done += PAGE_SIZE - within
        for start in range(address + done, address + memory_size, PAGE_SIZE):
            yield AddedPage(start, flags, None, True)


def _round_up(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def _segment_flags(segment: Segment) -> int:
    permissions = (segment.flags & 4) >> 2 | segment.flags & 2 | (segment.flags & 1) << 2
    return secinfo_flags(PageType.REG, permissions)


def _trailing_page(segment: Segment, following: int | None) -> Iterator[AddedPage]:
    """Metadata 1.3 (SDK 1.5) added one more page behind a segment in some cases (loader.cpp,
    build_sections)."""
    end = _round_up(segment.address + segment.memory_size)
    if end < _round_up(_round_up(segment.memory_size) + segment.address) and (
        following is None or end < following // PAGE_SIZE * PAGE_SIZE
    ):
        yield AddedPage(end, _segment_flags(segment), None, True)


def _place_tcs(template: bytes, address: int) -> bytes:
    """The TCS template with OSSA, OFSBASE and OGSBASE counted from its own place (loader.cpp,
    build_context)."""
    if len(template) > PAGE_SIZE:
        raise FormatError("the metadata's TCS is larger than a page")
    page = bytearray(template.ljust(PAGE_SIZE, b"\0"))
    for at in (16, 48, 56):
        value = int.from_bytes(page[at : at + 8], "little") + address
        page[at : at + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")
    return bytes(page)


def _slice(image: memoryview, offset: int, size: int, what: str) -> memoryview:
    if offset > len(image) or size > len(image) - offset:
        raise FormatError(f"{what} is outside the file")
    return image[offset : offset + size]


def read(image: memoryview) -> SignedObject:
    """Read a signed object's headers and metadata. Raises FormatError."""
    fields = _EHDR.unpack(_slice(image, 0, _EHDR.size, "the ELF header"))
    ident, kind, machine = fields[:3]
    program_offset, section_offset = fields[5:7]
    program_size, program_count, section_size, section_count, names_index = fields[9:14]
    if ident[:7] != b"\x7fELF\x02\x01\x01" or machine != 62:
        raise FormatError("not an ELF file for x86-64")
    if kind != 3 or program_size != _PHDR.size:
        raise FormatError("not a shared object, as enclaves of Intel's SDK are")
    programs = _slice(image, program_offset, program_size * program_count, "the program header table")
    segments = []
    dynamic = b""
    for entry in _PHDR.iter_unpack(programs):
        segment_type, flags, offset, address, _, file_size, memory_size, _ = entry
        if segment_type == PT_LOAD:
            _slice(image, offset, file_size, "a segment")
            segments.append(Segment(offset, address, file_size, memory_size, flags))
        elif segment_type == PT_DYNAMIC:
            dynamic = bytes(_slice(image, offset, file_size, "the dynamic segment"))
    note = _find_note(image, section_offset, section_size, section_count, names_index)
    return _read_metadata(note, tuple(segments), _relocated_pages(image, dynamic, tuple(segments)))


def _find_note(image: memoryview, offset: int, size: int, count: int, names_index: int) -> bytes:
    """The metadata block: the content of the note in ``.note.sgxmeta``."""
    missing = FormatError("the file has no SGX metadata: it is not an enclave signed with Intel's SDK")
    if size != _SHDR.size or names_index >= count:
        raise missing
    sections = list(_SHDR.iter_unpack(_slice(image, offset, size * count, "the section header table")))
    names = bytes(_slice(image, sections[names_index][4], sections[names_index][5], "the section names"))
    for section in sections:
        if names[section[0] : section[0] + len(SECTION_NAME) + 1] == SECTION_NAME + b"\0":
            note = bytes(_slice(image, section[4], section[5], ".note.sgxmeta"))
            break
    else:
        raise missing
    if len(note) < _NOTE.size:
        raise FormatError(".note.sgxmeta is shorter than a note")
    name_size, content_size, _ = _NOTE.unpack_from(note)
    start = _NOTE.size + len(NOTE_NAME)
    if (
        name_size != len(NOTE_NAME)
        or note[_NOTE.size : start] != NOTE_NAME
        or start + content_size > len(note)
    ):
        raise FormatError(".note.sgxmeta does not hold a note named sgx_metadata")
    return note[start : start + content_size]


def _read_metadata(block: bytes, segments: tuple[Segment, ...], relocated: frozenset[int]) -> SignedObject:
    """The first metadata in the block; others for older loaders may follow it."""
    if len(block) < _METADATA.size:
        raise FormatError("the SGX metadata is cut short")
    values = _METADATA.unpack_from(block)
    magic, version, size, policy, ssa_frame_size, _, misc_select, _, enclave_size = values[:9]
    if magic != METADATA_MAGIC:
        raise FormatError("the SGX metadata has another magic number")
    if not _METADATA.size <= size <= len(block):
        raise FormatError("the SGX metadata's size is not that of its block")
    major = version >> 32
    if major not in (1, 2):
        raise FormatError(f"SGX metadata of version {major} is not known (1 and 2 are)")
    check_ecreate(enclave_size, ssa_frame_size)
    return SignedObject(
        version=(major, version & 0xFFFFFFFF),
        enclave_size=enclave_size,
        ssa_frame_size=ssa_frame_size,
        tcs_policy=policy,
        misc_select=misc_select,
        sigstruct=parse(values[10]),
        segments=segments,
        metadata=block[:size],
        patch=(values[11], values[12]),
        layout=(values[13], values[14]),
        relocated_pages=relocated,
    )


def _relocated_pages(image: memoryview, dynamic: bytes, segments: tuple[Segment, ...]) -> frozenset[int]:
    """Numbers of the pages that text relocations write to: the loader makes those writable."""
    tags: dict[int, int] = {}
    for index in range(0, len(dynamic) - _DYN.size + 1, _DYN.size):
        tag, value = _DYN.unpack_from(dynamic, index)
        if tag == DT_NULL:
            break
        tags[tag] = value
    if DT_TEXTREL not in tags:
        return frozenset()
    found: set[int] = set()
    for table, size in ((DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)):
        if table not in tags:
            continue
        rows = _at_address(image, segments, tags[table], tags.get(size, 0) // _RELA.size * _RELA.size)
        for target, info, _ in _RELA.iter_unpack(rows):
            if info & 0xFFFFFFFF:
                found.update((target // PAGE_SIZE, (target + 7) // PAGE_SIZE))
    return frozenset(found)


def _at_address(image: memoryview, segments: tuple[Segment, ...], address: int, size: int) -> bytes:
    for segment in segments:
        if segment.address <= address and address + size <= segment.address + segment.file_size:
            return bytes(image[segment.offset + address - segment.address :][:size])
    raise FormatError("a relocation table is outside the file")
