"""Small programs made by the machine's own gcc, for tests that need real ELF files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

# A LibOS as far as a builder looks at it: linked at its place, with the entry that rewritten sites jump to.
LIBOS = """
char data[100] = {1};
char zeros[9000];
const char constants[10] = {2};
void libos_syscall_entry(void) {}
void _start(void) { for (;;) ; }
"""
HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


def need_gcc() -> str:
    """gcc's path; skips where there is none."""
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc here")
    return found


def compile_c(directory: Path, name: str, source: str, *options: str) -> Path:
    """Compile ``source`` to ``directory/name``; skips where gcc is missing or cannot (no static libc, no -m32)."""
    words = [need_gcc(), "-O1", "-x", "c", "-", "-o", str(directory / name), *options]
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name

    def compiled(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, input=text, text=True, capture_output=True, timeout=60, check=False)

    done = compiled(source)
    if done.returncode:
        assert compiled("int main(void) { return 0; }").returncode, f"it is the source: {done.stderr}"
        pytest.skip(f"gcc cannot make this here: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return program


def make_libos(directory: Path) -> Path:
    """A file that has the form of libos.elf."""
    return compile_c(
        directory, "libos.elf", LIBOS, "-static", "-nostdlib", "-ffreestanding", "-no-pie",
        "-Wl,-Ttext-segment=0x10000000,--build-id=none",
    )  # fmt: skip
