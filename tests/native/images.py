"""Builds the C test enclave into .sgxs and .sig, and the C test programs."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from elftools.elf.elffile import ELFFile

from strongroom.image.sgxs import Writer
from strongroom.image.signer import KeySigner
from strongroom.image.sigstruct import sign, template
from strongroom.isa.sigstruct import Sigstruct

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUILD = REPOSITORY / "build" / "tests" / "native"
PAGE = 4096
SIZE = 1 << 28
R, W, X, TCS, REG = 1, 2, 4, 0x100, 0x200
THREADS = 4
THREAD_BASE = 0x100000
"""Thread i at +i*0x20000: TCS, 3 SSA frames, thread page, exception stack (2 pages), gap, stack (8 pages)."""
STRIDE = 0x20000
CFLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]


def compile_all() -> None:
    """Compile enclave and programs (make does nothing when they are fresh)."""
    subprocess.run(["make", "-s", "-C", str(REPOSITORY / "native")], check=True, timeout=120)
    subprocess.run(["make", "-s", "-C", str(HERE), f"BUILD={BUILD}"], check=True, timeout=120)


def _tcs(base: int, entry: int, nssa: int) -> bytes:
    ssa, thread = base + PAGE, base + 4 * PAGE
    return struct.pack("<QQQIIQQQQII", 0, 0, ssa, 0, nssa, entry, 0, thread, thread, 0xFFF, 0xFFF).ljust(
        PAGE, b"\0"
    )


def _thread_page(base: int) -> bytes:
    words = [base + 4 * PAGE, base + 16 * PAGE, 0, 0, 0, base + 2 * PAGE - 184, base + 7 * PAGE]
    return struct.pack("<7Q", *words).ljust(PAGE, b"\0")


HEAP = 0x1000000
"""Where the pages of ``heap_pages`` begin."""
CODE = 0x2000000
"""Where those of ``code_pages`` begin."""


def build_image(
    out: Path,
    nssa: int = 3,
    unmeasured: bool = False,
    heap_pages: int = 0,
    threads: int = THREADS,
    frame_pages: int = 1,
    size: int = SIZE,
    heap: int = 0x1000000,
    code_pages: int = 0,
    filled: bool = False,
) -> bytes:
    """Write ``out``, of ELRANGE ``size``; the MRENCLAVE. ``unmeasured`` adds one page of data that EEXTEND does not
    see, ``heap_pages`` that many zero pages at ``heap`` (``filled``: measured, each with a content of its own),
    ``code_pages`` zero pages at CODE that can be written and executed; of SSA frames of ``frame_pages`` the first and
    the last page are there."""
    pages: dict[int, tuple[int, bytes | None]] = {}
    with (BUILD / "enclave.elf").open("rb") as file:
        elf = ELFFile(file)
        for segment in elf.iter_segments("PT_LOAD"):
            perms = (4 if segment["p_flags"] & 1 else 0) | (2 if segment["p_flags"] & 2 else 0) | 1
            data = segment.data().ljust(segment["p_memsz"], b"\0")
            for at in range(0, len(data), PAGE):
                pages[segment["p_vaddr"] + at] = (REG | perms, data[at : at + PAGE].ljust(PAGE, b"\0"))
        entry = elf["e_entry"]
    for i in range(threads):
        base = THREAD_BASE + i * STRIDE
        pages[base] = (TCS, _tcs(base, entry, nssa))
        for page in range(1, 4) if frame_pages == 1 else (1, frame_pages):
            pages[base + page * PAGE] = (REG | R | W, None)
        pages[base + 4 * PAGE] = (REG | R | W, _thread_page(base))
        for page in (5, 6, 8, 9, 10, 11, 12, 13, 14, 15):
            pages[base + page * PAGE] = (REG | R | W, None)
    with out.open("wb") as file:
        writer = Writer(file, size, frame_pages)
        for offset in sorted(pages):
            flags, content = pages[offset]
            writer.add_page(offset, flags, content)
        for page in range(heap_pages):
            content = (page + 1).to_bytes(PAGE, "little") if filled else None
            writer.add_page(heap + page * PAGE, REG | R | W, content)
        for page in range(code_pages):
            writer.add_page(CODE + page * PAGE, REG | R | W | X, bytes(PAGE))
        if unmeasured:
            writer.add_page(0x800000, REG | R | W, b"\x01" * PAGE, measured=False)
        return writer.mrenclave()


def sign_image(mrenclave: bytes, out: Path, signer: KeySigner, debug: bool = False) -> Sigstruct:
    """Write the SIGSTRUCT for an image."""
    signed = sign(template(mrenclave, debug=debug, product=7, svn=3), signer)
    out.write_bytes(signed.pack())
    return signed
