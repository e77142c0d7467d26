"""Attack 4 from within: attacks/intruder.c and an enclave of four pages, by ``strongroom exec --tamper=disable``."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from strongroom import paths
from strongroom.cli._projects import shipped
from strongroom.errors import StrongroomError

PAGE = 4096
ELRANGE = 2 << 20
BASE = 0x10000  # as in intruder.c
# In enclave mode: count this entry at DATA, store the count where RDI points outside, leave to RCX.
#   mov rdx, [DATA]; inc rdx; mov [DATA], rdx; mov [rdi], rdx; mov rbx, rcx; mov eax, EEXIT; enclu
_DATA = struct.pack("<I", BASE + 3 * PAGE)
CODE = (
    b"\x48\x8b\x14\x25" + _DATA + b"\x48\xff\xc2\x48\x89\x14\x25" + _DATA + b"\x48\x89\x17\x48\x89\xcb"
    b"\xb8\x04\x00\x00\x00\x0f\x01\xd7"
)  # fmt: skip


def pages() -> list[tuple[int, bytes]]:
    """(SECINFO flags, 4096 bytes) of TCS, SSA frame, code and data."""
    from strongroom.isa.flags import PageType, SecinfoFlags, secinfo_flags

    read, write, execute = SecinfoFlags.R, SecinfoFlags.W, SecinfoFlags.X
    # TCS (SDM vol. 3D, table "Layout of Thread Control Structure"): STATE, FLAGS, OSSA, CSSA, NSSA, OENTRY, AEP,
    # OFSBASE, OGSBASE, FSLIMIT, GSLIMIT.
    tcs = struct.pack(
        "<QQQIIQQQQII",
        0,
        0,
        BASE + PAGE,
        0,
        1,
        BASE + 2 * PAGE,
        0,
        BASE + 3 * PAGE,
        BASE + 3 * PAGE,
        0xFFF,
        0xFFF,
    )
    return [
        (secinfo_flags(PageType.TCS, SecinfoFlags(0)), tcs.ljust(PAGE, b"\0")),
        (secinfo_flags(PageType.REG, read | write), bytes(PAGE)),
        (secinfo_flags(PageType.REG, read | execute), CODE.ljust(PAGE, b"\xcc")),
        (secinfo_flags(PageType.REG, read | write), bytes(PAGE)),
    ]


def write_image(folder: Path) -> None:
    """``pages`` and ``sigstruct`` in ``folder``, signed with a key that is then forgotten."""
    from strongroom.image import sgxs, sigstruct
    from strongroom.image.signer import KeySigner

    writer = sgxs.Writer(io.BytesIO(), ELRANGE, ssa_frame_size=1)
    for number, (flags, data) in enumerate(pages()):
        writer.add_page(BASE + number * PAGE, flags, data, measured=True)
    signed = sigstruct.sign(
        sigstruct.template(writer.mrenclave(), debug=False, product=4, svn=1), KeySigner.generate()
    )
    (folder / "pages").write_bytes(b"".join(data for _, data in pages()))
    (folder / "sigstruct").write_bytes(signed.pack())


def prepare() -> Path:
    """The folder with the compiled program and its enclave, kept beside the VMs. Raises StrongroomError."""
    source = shipped("attacks") / "intruder.c"
    state = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
    where = paths.private_directory(paths.ensure_home() / "built")
    target = where / f"intruder-{state}"
    if (target / "sigstruct").is_file():
        return target
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise StrongroomError("no C compiler", "apt-get install gcc")
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=where))
    try:
        words = [
            compiler,
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            str(fresh / "intruder"),
            str(source),
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StrongroomError(
                f"intruder.c does not compile: {(done.stderr.splitlines() or ['no word'])[0]}"
            )
        write_image(fresh)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def command(vm: str, folder: Path) -> list[str]:
    """The command line that runs the attack in ``vm``, from a copy in ``folder``: ``exec`` hides STRONGROOM_HOME."""
    made = prepare()
    words = [shutil.copy2(made / name, folder / name) for name in ("intruder", "pages", "sigstruct")]
    return [
        sys.executable,
        "-m",
        "strongroom",
        "exec",
        "--vm",
        vm,
        "--tamper=disable",
        "--",
        *map(str, words),
    ]
