"""Evicted pages: another process does by /proc/PID/mem what a hostile kernel may do to them.

What an enclave evicts lies, encrypted and authenticated, in ordinary memory of its process: each page at its offset in
ELRANGE, then 16 bytes of tag for each page of ELRANGE. A process without an enclave has its pages at --place.
Each run is one step: `look` searches them for what was written, `flip` changes a bit of each, `swap` exchanges each two
neighbours, tags and all; `keep` copies them all into the scratch folder, and `put` puts that copy back.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import common
from common import GOT, MET, NOT_TRIED, REFUSED, Attempt

sys.path.insert(0, str(Path(__file__).resolve().parent / "paged"))

import records

PAGE, TAG = records.PAGE, 16


class Evicted:
    """The pages and tags of the records, as another process gets at them. Raises OSError."""

    def __init__(self, pid: int, place: int, elrange: int) -> None:
        self.descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        self.pages, self.tags = place, None
        if elrange:
            size = elrange + elrange // PAGE * TAG
            found = [one.start for one in common.mappings(pid)
                     if one.end - one.start == size and one.flags == "rw-s"]  # fmt: skip
            if not found:
                raise LookupError("the process has evicted nothing")
            self.pages, self.tags = found[0] + place, found[0] + elrange + place // PAGE * TAG

    def read(self) -> tuple[bytearray, bytearray]:
        """All pages, all tags (none where there are none)."""
        pages = bytearray(os.pread(self.descriptor, records.COUNT * PAGE, self.pages))
        tags = b"" if self.tags is None else os.pread(self.descriptor, records.COUNT * TAG, self.tags)
        return pages, bytearray(tags)

    def write(self, pages: bytes | bytearray, tags: bytes | bytearray) -> None:
        os.pwrite(self.descriptor, pages, self.pages)
        if self.tags is not None:
            os.pwrite(self.descriptor, tags, self.tags)


def swapped(block: bytearray, size: int) -> bytearray:
    """Each two neighbours of ``size`` bytes exchanged."""
    for at in range(0, len(block) - 2 * size + 1, 2 * size):
        block[at : at + 2 * size] = block[at + size : at + 2 * size] + block[at : at + size]
    return block


def outside(pages: bytes | bytearray) -> int:
    """Pages with anything in them: those that were evicted at some time."""
    empty = bytes(PAGE)
    return sum(pages[at : at + PAGE] != empty for at in range(0, len(pages), PAGE))


def step(do: str, evicted: Evicted, scratch: Path, seed: bytes) -> Attempt:
    """One step; ``got`` says that it was done, no more. Raises OSError."""
    pages, tags = evicted.read()
    count = outside(pages)
    if not count:
        return Attempt(do, NOT_TRIED, "no record is evicted")
    if do == "look":
        wanted = range(0, records.COUNT, 100)
        hits = sum(pages.count(records.stamp(seed, number)) for number in wanted)
        text = f"{hits} of {len(wanted)} records looked for, in {count:,} evicted pages"
        return Attempt(do, GOT if hits else MET, text)
    if do == "keep":
        (scratch / "pages").write_bytes(pages)
        (scratch / "tags").write_bytes(tags)
        return Attempt(do, GOT, f"{count:,} evicted pages kept")
    if do == "put":
        old, old_tags = (scratch / "pages").read_bytes(), (scratch / "tags").read_bytes()
        other = sum(pages[at : at + PAGE] != old[at : at + PAGE] for at in range(0, len(old), PAGE))
        evicted.write(old, old_tags)
        return Attempt(do, GOT, f"{count:,} older pages put back, {other:,} of them unlike the newer")
    if do == "flip":
        for at in range(0, len(pages), PAGE):  # where the control's records begin
            pages[at] ^= 1
    else:
        pages, tags = swapped(pages, PAGE), swapped(tags, TAG)
    evicted.write(pages, tags)
    return Attempt(do, GOT, f"{count:,} evicted pages changed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--place", type=int, required=True, help="the first record's address")
    parser.add_argument("--elrange", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--seed", type=bytes.fromhex, default=b"")
    parser.add_argument("--do", choices=("look", "flip", "swap", "keep", "put"), required=True)
    given = parser.parse_args()
    try:
        store = Evicted(given.pid, given.place, given.elrange)
        result = step(given.do, store, given.scratch, given.seed)
    except LookupError as error:
        result = Attempt(given.do, NOT_TRIED, str(error))
    except OSError as error:
        result = Attempt(given.do, REFUSED, common.why(error))
    common.report(result)
