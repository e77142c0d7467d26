"""What the attack programs share: the target's mappings, and results in one form.

An attack knows a process and a marker, and not whether the process holds an enclave: `strongroom attack` runs it
against both. It prints one JSON document {"attempts": [{"name", "result", "text"}]}. ``result`` is one of: got (the
text says what), refused (the system said no), met (it was tried and nothing was had), not tried (the text says why and
what to do).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

GOT, REFUSED, MET, NOT_TRIED = "got", "refused", "met", "not tried"


@dataclass(frozen=True)
class Attempt:
    """One thing tried and what came of it."""

    name: str
    result: str
    text: str


@dataclass(frozen=True)
class Mapping:
    """One line of /proc/PID/maps; addresses in bytes."""

    start: int
    end: int
    flags: str
    path: str

    @property
    def readable(self) -> bool:
        return self.flags[0] == "r"

    @property
    def executable(self) -> bool:
        return self.flags[2] == "x"


def arguments(description: str) -> argparse.Namespace:
    """--pid, --marker (hex), --elrange (bytes; 0 where the process holds no enclave), --scratch, --home."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--marker", type=bytes.fromhex, required=True, help="the value looked for, in hex")
    parser.add_argument(
        "--elrange", type=int, default=0, help="size in bytes of an enclave that starts at address 0"
    )
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for files")
    parser.add_argument("--home", type=Path, help="the platform's folder, where there is one")
    return parser.parse_args()


def report(*attempts: Attempt) -> None:
    """Print the results; the last thing an attack does."""
    print(json.dumps({"attempts": [asdict(attempt) for attempt in attempts]}))


def mappings(pid: int) -> list[Mapping]:
    """Of the process, by address. Raises OSError where they are not shown."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(None, 5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        found.append(Mapping(start, end, fields[1], fields[5] if len(fields) > 5 else ""))
    return found


BACKING = ("/secretmem", "/memfd:sgx-epc")
"""Names of the mappings through which the machine's library sees an enclave's pages, outside ELRANGE."""


def of_interest(pid: int, elrange: int, *, executable: bool) -> list[Mapping]:
    """The enclave's mappings and the library's view of them; of a process without one, all that are readable.

    An idle enclave's own mappings are without rights: they are tried all the same.
    """
    return [
        one for one in mappings(pid)
        if one.executable == executable and one.path not in ("[vvar]", "[vvar_vclock]", "[vsyscall]", "[vdso]")
        and (one.readable if not elrange or executable else one.start < elrange or one.path.startswith(BACKING))
    ]  # fmt: skip


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def ended_within(pid: int, seconds: float) -> bool:
    """Whether the process ends within that time: a watched one is killed a moment after an attach."""
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def why(error: OSError) -> str:
    return f"{error.strerror or error} (errno {error.errno})"


def megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def search_file(path: Path, marker: bytes) -> tuple[int, int]:
    """(occurrences of ``marker``, size in bytes) of a file."""
    count = size = 0
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            size += len(chunk)
            block = tail + chunk
            count += block.count(marker)
            tail = block[-len(marker) + 1 :]
    return count, size


def remove(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
