"""What the builder needs to know of an ELF file: segments, dependencies, function bounds.

Sources: System V ABI, AMD64 supplement (1.0); generic ABI chapters 4 and 5; Linux Standard Base Core 5.0, 10.6
(``.eh_frame_hdr``). Every byte is hostile: a file that is not what it claims raises ``ElfError``.
"""

from __future__ import annotations

import bisect
import io
import struct
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from elftools.elf.elffile import ELFFile

from strongroom.errors import FormatError

PAGE_SIZE = 4096
PF_X, PF_W, PF_R = 1, 2, 4
_DT_TEXTREL, _DT_FLAGS, _DF_TEXTREL = 22, 30, 4
# .eh_frame_hdr encodings that every linker for x86-64 Linux writes: DW_EH_PE_pcrel|sdata4, udata4, datarel|sdata4.
_HDR_POINTER, _HDR_COUNT, _HDR_TABLE = 0x1B, 0x03, 0x3B
# Elf64_Ehdr: e_phoff, e_phentsize and e_phnum; Elf64_Phdr: p_type first, p_align last (generic ABI, chapters 4 and 5).
_PHOFF, _PHENTSIZE, _PT_LOAD, _P_ALIGN = 32, 54, 1, 48
MAX_ALIGNMENT = 1 << 30


class ElfError(FormatError):
    """Not an ELF file that an enclave for x86-64 Linux can hold."""


@dataclass(frozen=True)
class Segment:
    """One PT_LOAD. ``vaddr`` is the file's own; sizes are bytes; ``prot`` is PF_* bits."""

    vaddr: int
    memory_size: int
    offset: int
    file_size: int
    prot: int

    @property
    def first_page(self) -> int:
        return self.vaddr & -PAGE_SIZE

    @property
    def end_page(self) -> int:
        return page_up(self.vaddr + self.memory_size)

    def holds(self, address: int) -> bool:
        """Whether ``address`` lies in what the file gives to this segment."""
        return self.vaddr <= address < self.vaddr + self.file_size

    @property
    def executable(self) -> bool:
        return bool(self.prot & PF_X)


@dataclass(frozen=True)
class Symbol:
    """A defined symbol: name, the file's own address, bytes (0: not told)."""

    name: str
    address: int
    size: int


@dataclass(frozen=True, eq=False)
class Elf:
    """One parsed file. ``name`` is what errors call it (a host path).

    ``data`` is the file as it goes in: ``alignment``, the largest that a segment asks for, is the layout's to keep, and
    no p_align says more than a page. A dynamic linker would look for an aligned address otherwise, and text has one.
    """

    name: str
    data: bytes = field(repr=False)
    position_independent: bool
    alignment: int
    entry: int
    segments: tuple[Segment, ...]
    interpreter: str | None
    needed: tuple[str, ...]
    soname: str | None
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    flags: frozenset[str]

    @property
    def low(self) -> int:
        """Lowest page of any segment (the file's own addresses)."""
        return min(segment.first_page for segment in self.segments)

    @property
    def high(self) -> int:
        """End of the last page of any segment."""
        return max(segment.end_page for segment in self.segments)

    def page_content(self, segment: Segment, page: int) -> bytes:
        """The 4096 bytes at ``page`` as mmap of the file shows them: also what lies around the segment in the file."""
        start = segment.offset - (segment.vaddr - page)
        got = self.data[max(start, 0) : start + PAGE_SIZE]
        return got.ljust(PAGE_SIZE, b"\0")

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """Functions and objects with an address, sorted by address (.symtab where it is there, else .dynsym).

        Empty where the section headers are damaged: nothing needs them to load.
        """
        try:
            return self._read_symbols()
        except Exception:  # pyelftools raises many kinds
            return ()

    def _read_symbols(self) -> tuple[Symbol, ...]:
        file = ELFFile(io.BytesIO(self.data))
        found: list[Symbol] = []
        for name in (".symtab", ".dynsym"):
            section = file.get_section_by_name(name)
            if section is None or section["sh_entsize"] != 24:
                continue
            strings = file.get_section(section["sh_link"])
            table = strings.data()
            for st_name, info, _other, shndx, value, size in struct.iter_unpack(
                "<IBBHQQ", _whole(section.data(), 24)
            ):
                if shndx == 0 or value == 0 or info & 0xF in (3, 4, 6):  # undefined, section, file, TLS
                    continue
                end = table.find(b"\0", st_name)
                found.append(Symbol(table[st_name:end].decode("utf-8", "replace"), value, size))
            if found:
                break
        return tuple(sorted(found, key=lambda symbol: (symbol.address, -symbol.size, symbol.name)))

    def symbol(self, name: str) -> int:
        """The address of a symbol by name. Raises ElfError."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol.address
        raise ElfError(f"{self.name} has no symbol {name}", "rebuild it with `make`")

    @cached_property
    def _symbol_starts(self) -> list[int]:
        return [symbol.address for symbol in self.symbols]

    def function_name(self, address: int) -> str | None:
        """The name of the symbol that ``address`` lies in, if one says its size, else the nearest below."""
        at = bisect.bisect_right(self._symbol_starts, address) - 1
        for back in range(at, max(at - 8, -1), -1):
            symbol = self.symbols[back]
            if symbol.address <= address < symbol.address + symbol.size:
                return symbol.name
        return self.symbols[at].name if at >= 0 and self.symbols[at].size == 0 else None

    def function_bounds(self, address: int) -> tuple[int, int] | None:
        """[start, end) of the function around ``address``: by its unwind entry, else by a symbol with a size."""
        found = self._fde_bounds(address)
        if found:
            return found
        at = bisect.bisect_right(self._symbol_starts, address) - 1
        for back in range(at, max(at - 8, -1), -1):
            symbol = self.symbols[back]
            if symbol.address <= address < symbol.address + symbol.size:
                return symbol.address, symbol.address + symbol.size
        return None

    @cached_property
    def _unwind_table(self) -> tuple[list[int], list[int]]:
        """.eh_frame_hdr's binary search table: function starts, addresses of their FDEs. Empty where unusual."""
        try:
            return self._read_unwind_table()
        except Exception:  # as above
            return [], []

    def _read_unwind_table(self) -> tuple[list[int], list[int]]:
        file = ELFFile(io.BytesIO(self.data))
        for segment in file.iter_segments("PT_GNU_EH_FRAME"):
            base, blob = segment["p_vaddr"], segment.data()
            if len(blob) < 12 or blob[0] != 1 or blob[1:4] != bytes((_HDR_POINTER, _HDR_COUNT, _HDR_TABLE)):
                break
            count = struct.unpack_from("<I", blob, 8)[0]
            if 12 + 8 * count > len(blob):
                break
            pairs = list(struct.iter_unpack("<ii", blob[12 : 12 + 8 * count]))
            starts = [base + start for start, _ in pairs]
            if any(a > b for a, b in pairwise(starts)):
                break
            return starts, [base + fde for _, fde in pairs]
        return [], []

    @property
    def function_starts(self) -> list[int]:
        """The starts of all functions with an unwind entry, sorted. Empty where the table is unusual."""
        return self._unwind_table[0]

    def _fde(self, address: int) -> tuple[int, int, int] | None:
        """(function start, end, address of its FDE) of the function around ``address``."""
        starts, fdes = self._unwind_table
        at = bisect.bisect_right(starts, address) - 1
        if at < 0:
            return None
        # FDE: u32 length, u32 CIE pointer, pc_begin, pc_range (sdata4 each with the CIE's usual `zR` encoding 0x1b).
        blob = self.at(fdes[at], 16)
        if blob is None:
            return None
        length, _cie, begin, size = struct.unpack("<IIiI", blob)
        if length in (0, 0xFFFFFFFF) or fdes[at] + 8 + begin != starts[at]:
            return None
        return (
            (starts[at], starts[at] + size, fdes[at]) if starts[at] <= address < starts[at] + size else None
        )

    def _fde_bounds(self, address: int) -> tuple[int, int] | None:
        found = self._fde(address)
        return found[:2] if found else None

    def has_landing_pads(self, address: int) -> bool:
        """Whether the function around ``address`` may be entered by exception handling (its CIE names an LSDA)."""
        found = self._fde(address)
        if found is None:
            return False
        pointer = self.at(found[2] + 4, 4)
        # CIE: u32 length, u32 0, u8 version, augmentation string.
        cie = self.at(found[2] + 4 - int.from_bytes(pointer, "little"), 17) if pointer else None
        return cie is None or b"L" in cie[9:].split(b"\0")[0]

    def at(self, address: int, size: int) -> bytes | None:
        """File bytes at one of the file's own addresses, or None where a segment does not hold them all."""
        for segment in self.segments:
            inside = address - segment.vaddr
            if inside >= 0 and inside + size <= segment.file_size:
                return self.data[segment.offset + inside : segment.offset + inside + size]
        return None


def page_up(value: int, unit: int = PAGE_SIZE) -> int:
    """``value`` rounded up to a multiple of ``unit`` (a power of two)."""
    return (value + unit - 1) & -unit


def is_elf(head: bytes) -> bool:
    """Whether a file that starts with ``head`` claims to be ELF."""
    return head[:4] == b"\x7fELF"


def parse(data: bytes, name: str) -> Elf:
    """Parse one file. Raises ElfError with what is wrong and what would do."""
    if not is_elf(data):
        what = "a script" if data[:2] == b"#!" else "not an ELF file"
        raise ElfError(f"{name} is {what}", "name an ELF program for x86-64 Linux, or a .py file")
    if len(data) < 64:
        raise ElfError(f"{name} is a truncated ELF file", "build it again")
    if data[4] != 2:
        raise ElfError(f"{name} is a 32-bit ELF file", "build it for x86-64 (gcc -m64)")
    if data[5] != 1:
        raise ElfError(f"{name} is a big-endian ELF file", "build it for x86-64")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if machine != 62:
        raise ElfError(f"{name} is made for another machine (ELF machine {machine})", "build it for x86-64")
    if kind not in (2, 3):
        raise ElfError(f"{name} is an ELF file that cannot be loaded (type {kind})", "link it first")
    try:
        return _parse(data, name, kind == 3)
    except ElfError:
        raise
    except Exception as error:  # pyelftools raises many kinds; all mean the same here
        raise ElfError(f"{name} is a damaged ELF file ({type(error).__name__})", "build it again") from error


def _parse(data: bytes, name: str, dynamic_type: bool) -> Elf:
    file = ELFFile(io.BytesIO(data))
    segments: list[Segment] = []
    interpreter: str | None = None
    needed: list[str] = []
    soname: str | None = None
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    flags: set[str] = set()
    alignment = PAGE_SIZE
    part: Any
    for part in file.iter_segments():
        kind = part["p_type"]
        if kind == "PT_LOAD":
            alignment = max(alignment, part["p_align"])
            if part["p_memsz"]:
                segments.append(_segment(part.header, data, name))
        elif kind == "PT_INTERP":
            interpreter = part.get_interp_name()
        elif kind == "PT_GNU_STACK" and part["p_flags"] & PF_X:
            flags.add("executable-stack")
        elif kind == "PT_DYNAMIC":
            for tag in part.iter_tags():
                if tag.entry.d_tag == "DT_NEEDED":
                    needed.append(tag.needed)
                elif tag.entry.d_tag == "DT_SONAME":
                    soname = tag.soname
                elif tag.entry.d_tag == "DT_RPATH":
                    rpath = tuple(tag.rpath.split(":"))
                elif tag.entry.d_tag == "DT_RUNPATH":
                    runpath = tuple(tag.runpath.split(":"))
                elif tag.entry.d_tag == "DT_TEXTREL" or (
                    tag.entry.d_tag == "DT_FLAGS" and tag.entry.d_val & _DF_TEXTREL
                ):
                    flags.add("text-relocations")
    if not segments:
        raise ElfError(f"{name} has nothing to load", "name a linked program")
    _check_segments(segments, name)
    if "text-relocations" in flags:
        raise ElfError(
            f"{name} relocates its own text, which is measured and fixed inside", "compile it with -fPIC"
        )
    if dynamic_type and alignment > PAGE_SIZE:
        data = _page_aligned(data)
    return Elf(
        name=name, data=data, position_independent=dynamic_type, alignment=alignment, entry=file["e_entry"],
        segments=tuple(segments), interpreter=interpreter, needed=tuple(needed), soname=soname,
        rpath=rpath, runpath=runpath, flags=frozenset(flags),
    )  # fmt: skip


def _page_aligned(data: bytes) -> bytes:
    """``data`` with no p_align of a PT_LOAD beyond a page."""
    changed = bytearray(data)
    table = struct.unpack_from("<Q", data, _PHOFF)[0]
    entry_size, count = struct.unpack_from("<HH", data, _PHENTSIZE)
    for at in range(table, table + entry_size * count, entry_size):
        if struct.unpack_from("<I", data, at)[0] == _PT_LOAD:
            aligned = min(struct.unpack_from("<Q", data, at + _P_ALIGN)[0], PAGE_SIZE)
            struct.pack_into("<Q", changed, at + _P_ALIGN, aligned)
    return bytes(changed)


def _segment(header: Any, data: bytes, name: str) -> Segment:
    found = Segment(
        header["p_vaddr"], header["p_memsz"], header["p_offset"], header["p_filesz"], header["p_flags"] & 7
    )
    if found.offset + found.file_size > len(data) or found.file_size > found.memory_size:
        raise ElfError(f"{name} is a truncated ELF file", "build or install it again")
    if found.vaddr + found.memory_size > 1 << 46:
        raise ElfError(f"{name} asks for memory beyond an enclave's range", "link it at a usual address")
    if header["p_align"] & (header["p_align"] - 1) or header["p_align"] > MAX_ALIGNMENT:
        raise ElfError(f"{name} asks for an alignment of {header['p_align']:#x}", "link it with a usual one")
    if (found.vaddr - found.offset) % PAGE_SIZE:
        raise ElfError(f"{name} has a segment that is not page-aligned with its file", "link it again")
    return found


def _check_segments(segments: list[Segment], name: str) -> None:
    for segment in segments:
        if segment.prot & PF_X and segment.prot & PF_W:
            raise ElfError(
                f"{name} has a segment that is writable and executable",
                "link it with -z separate-code, without -N",
            )
        if segment.executable and segment.memory_size != segment.file_size:
            raise ElfError(f"{name} has executable memory that is not in the file", "link it again")
    for one, two in pairwise(segments):
        if two.vaddr < one.vaddr + one.memory_size:
            raise ElfError(f"{name} has segments that overlap or are out of order", "link it again")
        if two.first_page < one.end_page and one.executable != two.executable:
            raise ElfError(f"{name} has code and data in one page", "link it with -z separate-code")


def _whole(blob: bytes, unit: int) -> bytes:
    return blob[: len(blob) - len(blob) % unit]
