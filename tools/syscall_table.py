"""Prints docs/syscalls.md from the LibOS's table, libos/sys/table.h: the code is the one source.

Usage: tools/syscall_table.py > docs/syscalls.md
"""

from __future__ import annotations

import re
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "libos" / "sys" / "table.h"
ENTRY = re.compile(r'^SYS\((\d+), (\w+), (\w+), (FULL|PARTIAL|REFUSED), "([^"]*)"\)$')
HEAD = """# System calls inside

Made by `tools/syscall_table.py` from `libos/sys/table.h`; a test holds the two together. *full*: as Linux does, as
far as a program inside can tell. *partial*: the note says what is missing. *refused*: ENOSYS by design. A call that is
not listed answers ENOSYS.

{full} full, {partial} partial, {refused} refused.

| number | call | support | note |
| ---: | --- | --- | --- |
"""


def entries(text: str) -> list[tuple[int, str, str, str]]:
    """(number, name, level, note) of each line. Raises ValueError for a line that looks like one and is not."""
    found = []
    for line in text.splitlines():
        if line.startswith("SYS("):
            match = ENTRY.match(line)
            if match is None:
                raise ValueError(f"not an entry: {line}")
            found.append((int(match[1]), match[2], match[4].lower(), match[5]))
    return found


def page(text: str) -> str:
    """The whole of docs/syscalls.md."""
    found = entries(text)
    counts = {level: sum(one[2] == level for one in found) for level in ("full", "partial", "refused")}
    rows = "".join(f"| {number} | `{name}` | {level} | {note} |\n" for number, name, level, note in found)
    return HEAD.format(**counts) + rows


if __name__ == "__main__":
    print(page(TABLE.read_text(encoding="utf-8")), end="")
