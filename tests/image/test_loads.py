"""An image on the processor: loaded by a loader made from the uapi header alone, entered, and a rewritten call served.

The LibOS here is a few instructions that look where they are; the pages, the measurement and the signature are real.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strongroom.image import libraries
from strongroom.image.build import FACTS, PACK, SIGNATURE, STREAM, build
from support.interpreter_image import need_runtime
from support.package_server import package_server
from support.programs import HELLO, compile_c

ROOT = Path(__file__).resolve().parents[2]
# EENTER: RDI function, RSI the host's call[], RCX where EEXIT goes. Function 0: the boot information's magic and the
# thread page's own address must be right. 1: call the function at call[0], on the LibOS's stack; its result leaves.
LIBOS = r"""
__asm__(
".globl _start, libos_syscall_entry\n"
"libos_syscall_entry: lea 0x40000(%rax), %eax\n jmp *%rcx\n"
"_start: mov %rcx, %gs:0x100\n mov %rsp, %gs:0x108\n mov %rbp, %gs:0x110\n mov %rsi, %rbp\n"
" mov %gs:8, %rsp\n"
" test %rdi, %rdi\n jnz 1f\n"
" mov 0x10000, %rax\n xor %gs:0, %rax\n jmp 2f\n"
"1: call *(%rbp)\n"
"2: mov %rax, 8(%rbp)\n"
" mov %gs:0x108, %rsp\n mov %gs:0x110, %rbp\n"
" xor %edi, %edi\n mov %gs:0x100, %rbx\n mov $4, %eax\n enclu\n");
"""
BOOT_MAGIC, THREAD_PAGE = 0x314F464E49545342, 0x18004000


@pytest.fixture
def loader(tmp_path: Path) -> Path:
    need_runtime("strongroom-inject", "libstrongroom-processor.elf")
    source = (ROOT / "tests" / "native" / "loader.c").read_text()
    return compile_c(tmp_path / "tools", "loader", source)


def test_image_runs_on_the_processor(loader: Path, tmp_path: Path) -> None:
    libos = compile_c(
        tmp_path / "tools", "libos.elf", LIBOS, "-static", "-nostdlib", "-no-pie",
        "-Wl,-Ttext-segment=0x10000000,--build-id=none",
    )  # fmt: skip
    project = tmp_path / "p"
    project.mkdir()
    program = compile_c(tmp_path / "tools", "hello", HELLO)
    (project / "hello").write_bytes(program.read_bytes())
    (project / "enclave.toml").write_text('main = "hello"\nmemory = "4M"\nthreads = 2\n')
    result = build(project, libos=libos)
    stream, signature = str(result.directory / STREAM), str(result.directory / SIGNATURE)

    facts = json.loads((result.directory / FACTS).read_text())
    libc = next(one for one in facts["objects"] if one["path"].endswith("libc.so.6"))
    host = libraries.find("libc.so.6", (libraries.Object("/x", program, libraries.load(program)),))
    assert host is not None
    function = libraries.load(host).symbol("getppid")
    site = next(
        one
        for one in facts["sites"]
        if one["object"] == libc["path"] and function <= one["offset"] < function + 32
    )
    assert site["outcome"] == "rewritten"
    assert (result.directory / PACK).is_file()

    with package_server() as server:
        done = server.run([str(loader), stream, signature, "0"])
        assert done.returncode == 0, done.stderr
        assert (
            f"ret 0 function 4 vector 0 error 0 addr 0 out {BOOT_MAGIC ^ THREAD_PAGE:#x}"
            in done.stdout.decode()
        )
        # getppid of the C library, whose `syscall` is a jump now, reaches libos_syscall_entry and comes back.
        done = server.run([str(loader), stream, signature, "1", hex(libc["base"] + function)])
        assert done.returncode == 0, done.stderr
        assert f"out {0x40000 + 110:#x}" in done.stdout.decode()

        content = bytearray(Path(stream).read_bytes())
        content[content.index(b"EEXTEND\0") + 64] ^= 1
        (tmp_path / "changed.sgxs").write_bytes(content)
        done = server.run([str(loader), str(tmp_path / "changed.sgxs"), signature, "0"])
        assert done.returncode == 1
        assert "loader: init" in done.stderr.decode()
