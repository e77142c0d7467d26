"""Tables on a terminal: what does not fit is left out and named, never cut."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from strongroom.vm.sizes import CATALOGUE

COLUMNS = ["size", "vCPU", "GiB", "EPC MiB", "SGX", "temp GiB", "disks", "IOPS", "MB/s", "NICs"]


def on_a_terminal(columns: int, *words: str) -> list[str]:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as ours_file:
        with os.fdopen(theirs, "wb", buffering=0) as theirs_file:
            done = subprocess.Popen(
                [sys.executable, "-m", "strongroom", *words], stdout=theirs_file, stdin=subprocess.DEVNULL,
                env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"},
            )  # fmt: skip
        said = b""
        try:
            while part := ours_file.read(65536):
                said += part
        except OSError:
            pass  # EIO: the other end is closed
        assert done.wait(30) == 0
    text = said.decode().replace("\x1b[1m", "").replace("\x1b[0m", "")
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("columns", [30, 60, 100])
def test_sizes(columns: int) -> None:
    head, *rows = on_a_terminal(columns, "vm", "sizes")
    rows, told = rows[: len(CATALOGUE)], " ".join(rows[len(CATALOGUE) :])
    left_out = told.removeprefix("no room for: ").split(", ") if told else []
    assert [row.split()[0] for row in rows] == [size.name for size in CATALOGUE]
    shown = COLUMNS[: len(COLUMNS) - len(left_out)]
    assert head.split() == " ".join(shown).split() and left_out == COLUMNS[len(shown) :]
    assert all(len(row.split()) == len(shown) and len(row) <= columns for row in rows)
    assert (len(left_out) == 0) == (columns == 100)
