"""The attacks in C, and the small enclaves that some of them bring: compiled once, kept beside the VMs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from strongroom import paths
from strongroom.cli._projects import shipped
from strongroom.errors import StrongroomError


def compiler() -> str:
    """Raises StrongroomError."""
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        raise StrongroomError("no C compiler", "apt-get install gcc")
    return found


def run(words: list[str], what: str) -> None:
    """One command of the tool chain. Raises StrongroomError with its first line."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StrongroomError(
            f"{what} does not compile: {(done.stderr.strip().splitlines() or ['no word'])[0]}"
        )


def kept(name: str, sources: list[Path], make: Callable[[Path], None], words: str = "") -> Path:
    """The folder that ``make`` fills, made anew when ``sources`` or ``words`` changed. Raises StrongroomError."""
    state = hashlib.sha256(words.encode())
    for source in sources:
        state.update(source.read_bytes())
    where = paths.private_directory(paths.ensure_home() / "built")
    target = where / f"{name}-{state.hexdigest()[:16]}"
    if (target / "done").is_file():
        return target
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=where))
    try:
        make(fresh)
        (fresh / "done").touch()
        shutil.rmtree(target, ignore_errors=True)
        os.rename(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    for old in where.glob(f"{name}-{'[0-9a-f]' * 16}"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def program(name: str, *options: str, sources: tuple[Path, ...] = (), more: tuple[Path, ...] = ()) -> Path:
    """attacks/NAME.c with ``sources`` as a program; ``more`` are files that they include. Raises StrongroomError."""
    first = shipped("attacks") / f"{name}.c"
    files = [first, shipped("attacks") / "enclave_host.h", *sources, *more, Path(__file__)]

    def make(folder: Path) -> None:
        words = [compiler(), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *options]
        run([*words, "-o", str(folder / first.stem), str(first), *map(str, sources)], first.name)

    return kept(first.stem, files, make, " ".join(options)) / first.stem


def liar() -> Path:
    """attacks/liar.c, which is the loader with lies in it: from the source tree alone. Raises StrongroomError."""
    folder = shipped("attacks").parent / "libos"
    source = folder / "loader" / "loader.c"
    if not source.is_file():
        raise StrongroomError("the loader's source is not installed", "run this from the source tree")
    others = tuple(file for file in sorted(source.parent.glob("*.c")) if file != source)
    includes = (f"-I{folder / 'include'}", f"-I{source.parent}", f'-DLOADER="{source}"')
    more = (source, *sorted(source.parent.glob("*.h")), folder / "include" / "ocall.h")
    return program("liar", "-static-pie", "-fPIE", *includes, sources=others, more=more)


def code(name: str, size: int) -> bytes:
    """The machine code of attacks/NAME.S, at most ``size`` bytes. Raises StrongroomError."""
    source = shipped("attacks") / f"{name}.S"
    with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
        made, raw = Path(folder) / "code.o", Path(folder) / "code"
        run([compiler(), "-c", "-o", str(made), str(source)], source.name)
        run(["objcopy", "-O", "binary", "-j", ".text", str(made), str(raw)], source.name)
        found = raw.read_bytes()
    if len(found) > size:
        raise StrongroomError(f"{source.name} is {len(found)} bytes, more than {size}")
    return found
