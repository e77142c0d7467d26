"""Builds the C parts for the sanitizers: programs of pure parts (address, undefined), and whole builds with traps."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CHECKED = ["gcc", "-std=gnu11", "-g", "-O1", "-w", "-msha", "-msse4.1", "-fsanitize=address,undefined",
           "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-no-pie", "-pthread"]  # fmt: skip
# Packed structures are read where they lie: alignment is left out. A trap is #UD, which each half reports.
TRAPPING = "gcc -fsanitize=undefined -fno-sanitize=alignment -fsanitize-undefined-trap-on-error"


def program(name: str, folder: Path) -> Path:
    """tests/sanitize/NAME.c. What it never calls of the other files stays unresolved."""
    places = ("libos/include", "libos/loader", "native/include", "build/native/obj")
    includes = [f"-I{REPOSITORY / place}" for place in places]
    source, plain, out = HERE / f"{name}.c", folder / f"{name}.i", folder / name
    words = [*CHECKED, *includes]
    subprocess.run([*words, "-E", "-o", str(plain), str(source)], check=True)
    # A hidden symbol may not stay unresolved.
    plain.write_text(re.sub(r"^#pragma GCC visibility.*$", "", plain.read_text(), flags=re.MULTILINE))
    link = ["-Wl,--unresolved-symbols=ignore-all", "-o", str(out)]
    subprocess.run([*words, "-fpreprocessed", str(plain), *link], check=True)
    return out


def trapping(folder: Path) -> Path:
    """Both halves, each undefined behaviour a trap; the folder with the parts."""
    for half in ("native", "libos"):
        words = ["make", "-s", "-j2", "-C", str(REPOSITORY / half), f"BUILD={folder}"]
        subprocess.run([*words, f"TESTS={folder / 'tests'}", f"CC={TRAPPING}"], check=True, timeout=300)
    return folder
