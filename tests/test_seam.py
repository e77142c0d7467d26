"""The seam: what tells an enclave from an interpreter that runs natively beside a printed hash (design, "the fake").

Runtime and machine meet at Linux's SGX interface only. Each check here would fail where they met elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from strongroom.cli._attack_targets import (
    programs,
)
from strongroom.cli._projects import elrange_of
from strongroom.errors import StrongroomError
from strongroom.image import sgxs
from strongroom.machine import client
from support.interpreter_image import need_runtime
from support.package_server import package_server
from support.programs import compile_c

REPOSITORY = Path(__file__).resolve().parent.parent
BUSY = """
import hashlib
print("up", flush=True)
while True:
    sum(i * i for i in range(20000)); hashlib.sha256(bytes(4096)).digest()
"""
PTRACE_GETREGS, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 12, 17, 0x4206, 0x4207
RIP = 16  # struct user_regs_struct, <sys/user.h>


def strongroom(*words: str) -> list[str]:
    return [sys.executable, "-m", "strongroom", *words]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose program computes until it is ended; a DEBUG enclave, so that it can be looked at."""
    need_runtime()
    project = tmp_path_factory.mktemp("busy")
    (project / "main.py").write_text(BUSY)
    (project / "enclave.toml").write_text(
        '[enclave]\nmain = "main.py"\nmemory = "16M"\nthreads = 2\ndebug = true\n'
    )
    subprocess.run(strongroom("build", str(project)), check=True, capture_output=True, timeout=120)
    return project


@dataclass
class Busy:
    """The running enclave's process, and ELRANGE's end (its base is 0)."""

    pid: int
    elrange: int

    def maps(self) -> list[tuple[int, int, str, str]]:
        """Start, end, permissions, name of each mapping."""
        found = []
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            span, permissions, _, _, _, *name = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in span.split("-"))
            found.append((start, end, permissions, name[0] if name else ""))
        return found


@pytest.fixture
def busy(built: Path, strongroom_home: Path) -> Iterator[Busy]:
    with subprocess.Popen(strongroom("run", str(built)), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            (pid,) = programs("default")
            yield Busy(pid, elrange_of(built))
        finally:
            process.kill()
            with contextlib.suppress(StrongroomError):
                client.ask("stop", start=False)


@pytest.fixture
def may_look(busy: Busy) -> Busy:
    """As an ordinary user another user's process does not open, even a DEBUG enclave's (other tests need no look)."""
    if os.geteuid() != 0:
        try:
            Path(f"/proc/{busy.pid}/maps").read_text()
        except PermissionError:
            pytest.skip("the loader's process belongs to another user: looking into it needs root")
    return busy


def test_no_interpreter_outside(may_look: Busy) -> None:
    """The process maps our loader and the enclave; no interpreter, C library, extension module or Python file."""
    names = [name for *_, name in may_look.maps() if name]
    assert any(name.endswith("/strongroom-loader") for name in names)
    for name in names:
        assert not re.search(r"python|libc|ld-linux|\.py|\.so", name), name
    control = Path("/proc/self/maps").read_text()
    assert "python" in control
    assert ".so" in control


def test_sampled_instruction_pointers(may_look: Busy) -> None:
    """Nothing runs but the enclave, the loader, and the machine's library, which is the processor."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    pid = may_look.pid
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
        pytest.skip(f"ptrace is refused: {os.strerror(ctypes.get_errno())}")
    inside, elsewhere = 0, []
    registers = (ctypes.c_ulonglong * 64)()
    outside = [
        (start, end)
        for start, end, permissions, name in may_look.maps()
        if "x" in permissions and start >= may_look.elrange
    ]
    named = {
        name
        for start, _, permissions, name in may_look.maps()
        if "x" in permissions and start >= may_look.elrange
    }
    for _ in range(60):
        assert libc.ptrace(PTRACE_INTERRUPT, pid, None, None) == 0
        os.waitpid(pid, 0x40000000)  # __WALL
        assert libc.ptrace(PTRACE_GETREGS, pid, None, ctypes.byref(registers)) == 0
        pointer = registers[RIP]
        if pointer < may_look.elrange:
            inside += 1
        elif not any(start <= pointer < end for start, end in outside):
            elsewhere.append(hex(pointer))
        assert libc.ptrace(7, pid, None, None) == 0  # PTRACE_CONT
        time.sleep(0.003)
    assert libc.ptrace(PTRACE_INTERRUPT, pid, None, None) == 0
    os.waitpid(pid, 0x40000000)
    assert libc.ptrace(PTRACE_DETACH, pid, None, None) == 0
    assert not elsewhere, named
    assert inside > 50  # it computes: most of the time is spent inside


def test_what_was_added_is_the_image(may_look: Busy, built: Path) -> None:
    """The read-execute pages at their addresses are the bytes of the measured stream, page for page."""
    seen = pages = 0
    with (
        sgxs.mapped(built / "build" / "enclave.sgxs") as view,
        open(f"/proc/{may_look.pid}/mem", "rb", buffering=0) as memory,
    ):
        for page in measured_code(view):
            pages += 1
            memory.seek(page.offset)
            seen += memory.read(4096) == page.content
    assert pages > 500
    assert seen == pages


@dataclass
class Page:
    offset: int
    content: bytes


def measured_code(view: memoryview) -> Iterator[Page]:
    """Pages with SECINFO flags R and X (not W), wholly measured. SDM vol. 3D, EADD and EEXTEND records."""
    at = 64
    while at < len(view):
        assert bytes(view[at : at + 8]) == b"EADD\0\0\0\0"
        offset = int.from_bytes(view[at + 8 : at + 16], "little")
        flags = int.from_bytes(view[at + 16 : at + 24], "little")
        at += 64
        content = b""
        while at < len(view) and bytes(view[at : at + 4]) != b"EADD":
            if bytes(view[at : at + 8]) == b"EEXTEND\0":
                content += bytes(view[at + 64 : at + 320])
            at += 320
        if flags == 0x205 and len(content) == 4096:  # PT_REG, R, X
            yield Page(offset, content)


@pytest.fixture(scope="module")
def small_loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = (REPOSITORY / "tests" / "native" / "loader.c").read_text()
    assert source.count("\n") <= 200
    includes = set(re.findall(r"#include <(.*)>", source))
    assert "asm/sgx.h" in includes
    assert '#include "' not in source  # nothing of ours
    return compile_c(tmp_path_factory.mktemp("tools"), "loader", source)


def test_a_loader_of_200_lines_starts_the_same_image(small_loader: Path, built: Path) -> None:
    """Loads, initialises and enters; the LibOS, asked for no function it has, leaves by EEXIT."""
    stream, signature = built / "build" / "enclave.sgxs", built / "build" / "enclave.sig"
    with package_server() as server:
        done = server.run([str(small_loader), str(stream), str(signature), "0"])
        server.join()
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"ret 0 function 4 vector 0 error 0 ")


@pytest.mark.parametrize("part", range(4))
def test_one_flipped_byte_is_refused(
    small_loader: Path, built: Path, tmp_path: Path, strongroom_home: Path, part: int
) -> None:
    """By the init ioctl with EPERM for the small loader, and by ``run``."""
    image = bytearray((built / "build" / "enclave.sgxs").read_bytes())
    records = [at.start() for at in re.finditer(rb"EEXTEND\0", image)]
    image[records[len(records) * part // 4] + 64 + 17] ^= 1
    folder = tmp_path / "build"
    folder.mkdir()
    for name in ("enclave.sig", "files.pack", "enclave.json"):
        (folder / name).write_bytes((built / "build" / name).read_bytes())
    (folder / "enclave.sgxs").write_bytes(image)
    with package_server() as server:
        done = server.run([str(small_loader), str(folder / "enclave.sgxs"), str(folder / "enclave.sig")])
        server.join()
    assert (done.returncode, done.stderr.strip()) == (1, b"loader: init: EPERM")
    ran = subprocess.run(
        strongroom("run", str(tmp_path)), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 125, ran.stderr
    assert "up" not in ran.stdout
    said = ran.stderr.splitlines()
    assert len(said) == 2  # the headline and the error
    assert json.loads((folder / "enclave.json").read_text())  # unharmed
    client.ask("stop", start=False)
