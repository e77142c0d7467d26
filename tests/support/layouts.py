"""Layouts are written twice, in Python and in C, and compared: this asks the C compiler for its offsets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from support.programs import need_gcc

INCLUDE = Path(__file__).resolve().parents[2] / "libos" / "include"


def c_offsets(
    work: Path, header: str, structures: Mapping[str, Iterable[str]]
) -> dict[str, tuple[int, dict[str, int]]]:
    """``structure -> (size, member -> offset)`` of a header of the LibOS; skips where it or gcc is not here."""
    if not (INCLUDE / header).is_file():
        pytest.skip(f"libos/include/{header} is not here")
    lines = ["#include <stddef.h>", "#include <stdint.h>", "#include <stdio.h>", f'#include "{header}"']
    lines += ["int main(void) {", 'printf("{");']
    for number, (name, members) in enumerate(structures.items()):
        lines.append(f'printf("{", " if number else ""}\\"{name}\\": [%zu, {{", sizeof(struct {name}));')
        for index, member in enumerate(members):
            comma = ", " if index else ""
            lines.append(f'printf("{comma}\\"{member}\\": %zu", offsetof(struct {name}, {member}));')
        lines.append('printf("}]");')
    lines += ['printf("}");', "return 0; }"]
    program = work / "offsets"
    done = subprocess.run(
        [need_gcc(), "-x", "c", "-", "-I", str(INCLUDE), "-o", str(program)], input="\n".join(lines), text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(subprocess.run([program], capture_output=True, timeout=10, check=True).stdout)
    return {name: (size, offsets) for name, (size, offsets) in found.items()}
