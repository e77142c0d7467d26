"""Attack 1: a debugger attaches and searches memory; gcore writes a core file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import common
from common import GOT, MET, NOT_TRIED, REFUSED, Attempt

INSTALL = "apt-get install gdb"
# Runs in gdb's own Python, attached: every readable mapping is searched.
SEARCH = """
import gdb
pid, marker = gdb.selected_inferior().pid, bytes.fromhex(MARKER)
hits = read = refused = 0
for line in open(f"/proc/{pid}/maps"):
    span, flags, *rest = line.split()
    if flags[0] != "r" or "[v" in line:
        continue
    start, end = (int(x, 16) for x in span.split("-"))
    for at in range(start, end, 1 << 22):
        size = min(end, at + (1 << 22) + len(marker)) - at
        try:
            block = bytes(gdb.selected_inferior().read_memory(at, size))
        except gdb.error:
            refused += size
            continue
        read += size
        hits += block.count(marker)
print(f"SEARCHED {hits} {read} {refused}")
"""


def gdb_words() -> list[str]:
    return ["gdb", "-nx", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBUGINFOD_URLS": ""}
    return subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=60, env=environment, check=False
    )


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if "ptrace" in line.lower() or "not permitted" in line.lower() or "no such" in line.lower()
    ]
    return (telling or lines or ["no word"])[0].rstrip(".")


def attach(pid: int, marker: bytes, scratch: Path) -> Attempt:
    name = "gdb attach, search of memory"
    if not shutil.which("gdb"):
        return Attempt(name, NOT_TRIED, f"gdb is not installed: {INSTALL}")
    script = scratch / "search.py"
    script.write_text(SEARCH.replace("MARKER", repr(marker.hex())))
    try:
        done = run([*gdb_words(), "-p", str(pid), "-ex", f"source {script}"])
    except subprocess.TimeoutExpired:
        return Attempt(name, NOT_TRIED, "gdb did not end within 60 s")
    answer = next(
        (line.split()[1:] for line in done.stdout.splitlines() if line.startswith("SEARCHED")), None
    )
    killed = common.ended_within(pid, 0.3)
    if answer is None:
        if killed:
            return Attempt(name, REFUSED, "the process was killed as the debugger attached")
        return Attempt(name, REFUSED, last_words(done))
    hits, read, refused = map(int, answer)
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in {common.megabytes(read)}")
    end = "; the process was killed" if killed else ""
    text = f"marker not in the {common.megabytes(read)} that could be read; {common.megabytes(refused)} refused{end}"
    return Attempt(name, REFUSED if refused or killed else MET, text)


def core(pid: int, marker: bytes, scratch: Path) -> Attempt:
    name = "gcore, search of the core file"
    if not shutil.which("gcore"):
        return Attempt(name, NOT_TRIED, f"gcore is not installed: {INSTALL}")
    if not common.alive(pid):
        return Attempt(name, REFUSED, "the process had been killed at the attach before")
    target = scratch / f"core.{pid}"
    try:
        done = run(["gcore", "-o", str(scratch / "core"), str(pid)])
    except subprocess.TimeoutExpired:
        common.remove(target)
        return Attempt(name, NOT_TRIED, "gcore did not end within 60 s")
    if not target.exists():
        killed = common.ended_within(pid, 0.3)
        return Attempt(
            name, REFUSED, "the process was killed as gcore attached" if killed else last_words(done)
        )
    hits, size = common.search_file(target, marker)
    common.remove(target)
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in a core file of {common.megabytes(size)}")
    return Attempt(name, MET, f"a core file of {common.megabytes(size)} without the marker")


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    common.report(
        attach(given.pid, given.marker, given.scratch), core(given.pid, given.marker, given.scratch)
    )
