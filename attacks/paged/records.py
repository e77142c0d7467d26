"""Records, one a page, in more memory than the EPC has; each begins with a stamp that nobody else was told."""

from __future__ import annotations

import ctypes
import hashlib

PAGE = 4096
COUNT = 9_000


def stamp(seed: bytes, number: int) -> bytes:
    """32 bytes, the first of record ``number``."""
    return hashlib.sha256(b"strongroom attack record" + seed + number.to_bytes(4, "little")).digest()


def fill(memory: bytearray | memoryview, seed: bytes) -> None:
    """Write all records."""
    for number in range(COUNT):
        memory[number * PAGE : number * PAGE + 32] = stamp(seed, number)


def wrong(memory: bytearray | memoryview, seed: bytes) -> int:
    """How many records are not the ones written: 0 where nothing was changed."""
    return sum(memory[number * PAGE : number * PAGE + 32] != stamp(seed, number) for number in range(COUNT))


def room() -> tuple[memoryview, int]:
    """Page-aligned memory for all records, and its address."""
    held = bytearray((COUNT + 1) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(held))
    skip = -start % PAGE
    return memoryview(held)[skip : skip + COUNT * PAGE], start + skip
