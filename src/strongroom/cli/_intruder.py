"""The attacks from within a host program, attacks/intruder.c, misuse.c and evictor.c, each with its own enclave."""

from __future__ import annotations

import io
import os
import shutil
import struct
import sys
from pathlib import Path

from strongroom.cli import _compiled
from strongroom.cli._projects import shipped

PAGE = 4096
ELRANGE = 2 << 20
BASE = 0x10000  # as in enclave_host.h
HEAP = 0x100000
PAGED_ELRANGE, PAGED_HEAP = 64 << 20, 14336
"""As in evictor.c: bytes, and pages of heap."""
# In enclave mode: count this entry at DATA, store the count where RDI points outside, leave to RCX.
#   mov rdx, [DATA]; inc rdx; mov [DATA], rdx; mov [rdi], rdx; mov rbx, rcx; mov eax, EEXIT; enclu
_DATA = struct.pack("<I", BASE + 3 * PAGE)
CODE = (
    b"\x48\x8b\x14\x25" + _DATA + b"\x48\xff\xc2\x48\x89\x14\x25" + _DATA + b"\x48\x89\x17\x48\x89\xcb"
    b"\xb8\x04\x00\x00\x00\x0f\x01\xd7"
)  # fmt: skip


def pages(code: bytes, data: bytes = b"") -> list[tuple[int, bytes]]:
    """(SECINFO flags, 4096 bytes) of TCS, SSA frame, code and data."""
    from strongroom.isa.flags import PageType, SecinfoFlags, secinfo_flags

    read, write, execute = SecinfoFlags.R, SecinfoFlags.W, SecinfoFlags.X
    # TCS (SDM vol. 3D, table "Layout of Thread Control Structure"): STATE, FLAGS, OSSA, CSSA, NSSA, OENTRY, AEP,
    # OFSBASE, OGSBASE, FSLIMIT, GSLIMIT.
    words = (0, 0, BASE + PAGE, 0, 1, BASE + 2 * PAGE, 0, BASE + 3 * PAGE, BASE + 3 * PAGE, 0xFFF, 0xFFF)
    tcs = struct.pack("<QQQIIQQQQII", *words)
    return [
        (secinfo_flags(PageType.TCS, SecinfoFlags(0)), tcs.ljust(PAGE, b"\0")),
        (secinfo_flags(PageType.REG, read | write), bytes(PAGE)),
        (secinfo_flags(PageType.REG, read | execute), code.ljust(PAGE, b"\xcc")),
        (secinfo_flags(PageType.REG, read | write), data.ljust(PAGE, b"\0")),
    ]


def write_image(
    folder: Path, code: bytes = CODE, data: bytes = b"", elrange: int = ELRANGE, heap: int = 0
) -> None:
    """``pages`` and ``sigstruct`` in ``folder``, signed with a key that is then forgotten; ``heap``: pages of zeros."""
    from strongroom.image import sgxs, sigstruct
    from strongroom.image.signer import KeySigner

    writer = sgxs.Writer(io.BytesIO(), elrange, ssa_frame_size=1)
    made = pages(code, data)
    for number, (flags, page) in enumerate(made):
        writer.add_page(BASE + number * PAGE, flags, page, measured=True)
    for number in range(heap):
        writer.add_page(HEAP + number * PAGE, made[-1][0])
    signed = sigstruct.sign(
        sigstruct.template(writer.mrenclave(), debug=False, product=4, svn=1), KeySigner.generate()
    )
    (folder / "pages").write_bytes(b"".join(page for _, page in made))
    (folder / "sigstruct").write_bytes(signed.pack())


def command(vm: str, folder: Path) -> list[str]:
    """The command line that runs the attack in ``vm``, from a copy in ``folder``: ``exec`` hides STRONGROOM_HOME.

    Raises StrongroomError.
    """

    def make(target: Path) -> None:
        write_image(target)

    made = _compiled.kept("intruder-image", [Path(__file__)], make)
    return in_vm(vm, folder, "--tamper=disable", program=_compiled.program("intruder"), image=made)


def misuse(vm: str, folder: Path) -> list[str]:
    """The same for attacks/misuse.c, whose enclave holds secrets made for this run alone."""
    write_image(folder, _compiled.code("misuse_enclave", PAGE), os.urandom(32))
    return in_vm(vm, folder, program=_compiled.program("misuse"), image=folder)


def evictor(vm: str, folder: Path, attempt: str) -> list[str]:
    """The same for attacks/evictor.c, which makes one attempt; ``vm`` is to have less EPC than it fills."""

    def make(target: Path) -> None:
        code = _compiled.code("evictor_enclave", PAGE)
        write_image(target, code, elrange=PAGED_ELRANGE, heap=PAGED_HEAP)

    sources = [Path(__file__), shipped("attacks") / "evictor_enclave.S"]
    made = _compiled.kept("evictor-image", sources, make)
    return [*in_vm(vm, folder, program=evictor_program(), image=made), attempt]


def evictor_program() -> Path:
    """attacks/evictor.c, compiled. Raises StrongroomError."""
    return _compiled.program("evictor", more=(shipped("attacks") / "evicted_store.h",))


def in_vm(vm: str, folder: Path, *options: str, program: Path, image: Path) -> list[str]:
    """``strongroom exec`` of copies in ``folder``."""
    words = [folder / program.name, folder / "pages", folder / "sigstruct"]
    for source, copy in zip((program, image / "pages", image / "sigstruct"), words, strict=True):
        if source != copy:
            shutil.copy2(source, copy)
    command = [sys.executable, "-m", "strongroom", "exec", "--vm", vm, *options, "--"]
    return [*command, *map(str, words)]
