"""Where everything lies inside: addresses are offsets from the enclave's base 0 (map: docs/architecture.md).

The first 64 KiB are never mapped; the enclave's range is a power of two of at least 1 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from strongroom.errors import StrongroomError
from strongroom.image.boot import BOOT_ADDRESS
from strongroom.image.elf import PAGE_SIZE, PF_W, Elf, page_up
from strongroom.isa.enclave import Tcs
from strongroom.isa.flags import PageType, SecinfoFlags, secinfo_flags

LIBOS_BASE = 0x10000000
THREAD_BASE = 0x18000000
THREAD_STRIDE = 0x40000
THREAD_STACK_SIZE = 0x20000
OBJECT_BASE = 0x20000000
OBJECT_GAP = 0x10000
LARGE = 2 << 20
MIN_ELRANGE = 1 << 30
SSA_FRAMES = 3
# What the thread page (FS and GS base at entry) starts with: u64 its own address, u64 top of the LibOS's stack,
# u64 TCS, u64 first SSA frame, u32 number, u32 SSA frames; the rest is zero and the LibOS's.
THREAD_PAGE = struct.Struct("<QQQQII")
_R, _W, _X = SecinfoFlags.R, SecinfoFlags.W, SecinfoFlags.X
READ = secinfo_flags(PageType.REG, _R)
READ_WRITE = secinfo_flags(PageType.REG, _R | _W)
READ_EXECUTE = secinfo_flags(PageType.REG, _R | _X)
READ_WRITE_EXECUTE = secinfo_flags(PageType.REG, _R | _W | _X)
TCS = secinfo_flags(PageType.TCS)


@dataclass(frozen=True)
class Region:
    """Whole pages with the same SECINFO flags. ``content`` is measured; None: zero pages that are not measured."""

    name: str
    address: int
    size: int
    flags: int
    content: bytes | None = None

    @property
    def end(self) -> int:
        return self.address + self.size

    def pages(self) -> Iterator[tuple[int, bytes | None]]:
        """Each page's address and content (None: zero, not measured)."""
        for at in range(0, self.size, PAGE_SIZE):
            yield self.address + at, None if self.content is None else self.content[at : at + PAGE_SIZE]


@dataclass(frozen=True)
class Placed:
    """An ELF file at its base (0 for a program that is linked at a fixed address)."""

    path: str
    elf: Elf
    base: int
    flags: int

    @property
    def start(self) -> int:
        return self.base + self.elf.low

    @property
    def end(self) -> int:
        return self.base + self.elf.high


def measured(name: str, address: int, flags: int, content: bytes) -> Region:
    """A measured region of ``content``, padded with zeros to whole pages."""
    padded = content.ljust(page_up(len(content)), b"\0")
    return Region(name, address, len(padded), flags, padded)


def place_objects(objects: Iterable[tuple[str, Elf, int]], boot_end: int) -> tuple[list[Placed], int]:
    """Give each object (path, file, boot flags) its base, in the given order.

    Returns them and the first 2 MiB boundary after the last one. Raises StrongroomError where one cannot be placed.
    """
    placed: list[Placed] = []
    cursor = OBJECT_BASE
    for path, elf, flags in objects:
        if not elf.position_independent:
            if elf.low < boot_end or elf.high > LIBOS_BASE:
                raise StrongroomError(
                    f"{path} is linked at {elf.low:#x}, which an enclave cannot offer",
                    f"link it as PIE, or between {page_up(boot_end, 0x100000):#x} and {LIBOS_BASE:#x}",
                )
            placed.append(Placed(path, elf, 0, flags))
            continue
        # The file's own addresses may start above 0 (prelink): base + vaddr stays what ELF says.
        base = page_up(cursor, elf.alignment) - (elf.low & -elf.alignment)
        placed.append(Placed(path, elf, base, flags))
        cursor = page_up(base + elf.high) + OBJECT_GAP
    return placed, page_up(cursor, LARGE)


def object_regions(placed: Placed, text: dict[int, bytes]) -> list[Region]:
    """The pages of one object: executable segments measured, other segments' zero and writable; none between segments.

    ``text`` maps a segment's vaddr to the content of its pages (as the rewriting left it).
    """
    regions: list[Region] = []
    cursor = placed.start
    for segment in placed.elf.segments:
        start, end = placed.base + segment.first_page, placed.base + segment.end_page
        if segment.executable:
            if start < cursor:
                raise StrongroomError(
                    f"{placed.path} has two segments in one page", "link it with -z separate-code"
                )
            regions.append(measured(f"{placed.path} text", start, READ_EXECUTE, text[segment.vaddr]))
        elif regions and regions[-1].end >= start and regions[-1].content is None:
            regions[-1] = replace(regions[-1], size=end - regions[-1].address)
        elif max(start, cursor) < end:
            start = max(start, cursor)
            regions.append(Region(f"{placed.path} data", start, end - start, READ_WRITE))
        cursor = end
    return regions


def segment_text(elf: Elf) -> dict[int, bytes]:
    """The pages of each executable segment as mmap would show them, by the segment's vaddr."""
    return {
        segment.vaddr: b"".join(
            elf.page_content(segment, page) for page in range(segment.first_page, segment.end_page, PAGE_SIZE)
        )
        for segment in elf.segments
        if segment.executable
    }


def libos_regions(libos: Elf) -> list[Region]:
    """The LibOS, measured whole: also its zero pages, whose start a hostile loader could choose otherwise."""
    if libos.position_independent or libos.low != LIBOS_BASE or libos.high > THREAD_BASE:
        raise StrongroomError(f"{libos.name} is not linked at {LIBOS_BASE:#x}", "rebuild it with `make`")
    regions = []
    for segment in libos.segments:
        image = bytearray(segment.end_page - segment.first_page)
        at = segment.vaddr - segment.first_page
        image[at : at + segment.file_size] = libos.data[segment.offset : segment.offset + segment.file_size]
        flags = READ_EXECUTE if segment.executable else READ_WRITE if segment.prot & PF_W else READ
        name = {READ_EXECUTE: "text", READ_WRITE: "data", READ: "constants"}[flags]
        regions.append(measured(f"libos.elf {name}", segment.first_page, flags, bytes(image)))
    return regions


def thread_regions(count: int, entry: int) -> list[Region]:
    """For each thread: TCS, three SSA frames, the thread page (see THREAD_PAGE), a gap, the LibOS's stack."""
    regions = []
    for number in range(count):
        base = THREAD_BASE + number * THREAD_STRIDE
        ssa = base + PAGE_SIZE
        page = ssa + SSA_FRAMES * PAGE_SIZE
        tcs = Tcs(
            ssa_offset=ssa, nr_ssa_frames=SSA_FRAMES, entry_offset=entry, fs_offset=page, gs_offset=page,
            fs_limit=0xFFF, gs_limit=0xFFF,
        )  # fmt: skip
        regions += [
            measured(f"thread {number} TCS", base, TCS, tcs.pack()),
            Region(f"thread {number} SSA", ssa, SSA_FRAMES * PAGE_SIZE, READ_WRITE),
            measured(
                f"thread {number} page",
                page,
                READ_WRITE,
                THREAD_PAGE.pack(page, base + THREAD_STRIDE, base, ssa, number, SSA_FRAMES),
            ),
            Region(
                f"thread {number} stack",
                base + THREAD_STRIDE - THREAD_STACK_SIZE,
                THREAD_STACK_SIZE,
                READ_WRITE,
            ),
        ]
    return regions


def boot_region(blob: bytes) -> Region:
    """The boot information's pages."""
    return measured("boot information", BOOT_ADDRESS, READ, blob)


def late_regions(cursor: int, size: int) -> tuple[list[Region], int]:
    """The pages for code made at run time (none where ``size`` is 0), and where the next region may begin.

    Measured, though zero: what the host could choose of them would be code. The gap above catches a main stack that
    runs over: it is at the heap's beginning.
    """
    if not size:
        return [], cursor
    late = measured("late code", cursor, READ_WRITE_EXECUTE, bytes(size))
    return [late], page_up(late.end, LARGE) + LARGE


def elrange(end: int) -> int:
    """The enclave's size for a highest address of ``end``."""
    return max(MIN_ELRANGE, 1 << (end - 1).bit_length())


def check(regions: list[Region]) -> list[Region]:
    """Sort by address and make sure that none overlaps. Raises StrongroomError."""
    ordered = sorted(regions, key=lambda region: region.address)
    for one, two in pairwise(ordered):
        if two.address < one.end:
            raise StrongroomError(
                f"{one.name} and {two.name} would overlap inside", "report this: the layout is wrong"
            )
    return ordered
