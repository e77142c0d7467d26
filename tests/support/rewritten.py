"""Rewritten ELF files that run outside: their thunks lead to a stub that does the system call for real."""

from __future__ import annotations

import struct

from strongroom.image import elf, layout, rewrite

# lock incq COUNTER(%rip); movq %rcx, %xmm15; syscall; movq %xmm15, %rcx; jmp *%rcx
# RCX survives in XMM15: the kernel keeps it, gives it to a new thread, and signal frames hold it.
_COUNT = b"\xf0\x48\xff\x05"
_CALL = b"\x66\x4c\x0f\x6e\xf9\x0f\x05\x66\x4c\x0f\x7e\xf9\xff\xe1"
_PT_NOTE, _PT_GNU_PROPERTY = 4, 0x6474E553
COUNTER_OFFSET = 0x800


def runnable(data: bytes, address: int) -> tuple[bytes, list[rewrite.Decision]]:
    """``data`` rewritten, with stub, counter (at ``address`` + 0x800) and thunks in a new segment at ``address``.

    ``address`` is the file's own, page-aligned and above its segments. The new segment takes a PT_NOTE's place.
    """
    file = elf.parse(data, "program")
    decisions = rewrite.analyse(file)
    rewriter = rewrite.Rewriter(address + 0x1000, address)
    texts = rewriter.rewrite("program", file, 0, layout.segment_text(file), decisions)
    out = bytearray(data)
    for segment in file.segments:
        if segment.vaddr in texts:
            start = segment.vaddr - segment.first_page
            out[segment.offset : segment.offset + segment.file_size] = texts[segment.vaddr][
                start : start + segment.file_size
            ]
    stub = _COUNT + struct.pack("<i", COUNTER_OFFSET - 8) + _CALL
    blob = stub.ljust(COUNTER_OFFSET, b"\xcc").ljust(0x1000, b"\0") + bytes(rewriter.thunks)
    table, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    places = [table + number * size for number in range(count)]
    notes = [at for at in places if struct.unpack_from("<I", data, at)[0] in (_PT_NOTE, _PT_GNU_PROPERTY)]
    out += bytes(-len(out) % 4096)
    header = (1, 7, len(out), address, address, len(blob), len(blob), 4096)
    struct.pack_into("<IIQQQQQQ", out, notes[-1], *header)
    return bytes(out + blob), decisions
