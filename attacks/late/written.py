"""A function written at run time: it gives a number that nobody else was told."""

from __future__ import annotations

import ctypes
import hashlib
import mmap

_memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
PLACE = ctypes.addressof(ctypes.c_char.from_buffer(_memory))
_call = ctypes.CFUNCTYPE(ctypes.c_uint64)(PLACE)


def number(seed: bytes) -> bytes:
    """The 8 bytes in it."""
    return hashlib.sha256(b"strongroom attack late code" + seed).digest()[:8]


def write(seed: bytes) -> None:
    """Write it: movabs $number, %rax; ret."""
    _memory[:11] = b"\x48\xb8" + number(seed) + b"\xc3"


def run() -> str:
    """What it gives, in hex."""
    return int(_call()).to_bytes(8, "little").hex()


def turns(seed: bytes) -> None:
    """Write and run it in quick turns."""
    for _ in range(200):
        write(seed)
        run()


def serve(verb: str, seed: bytes) -> str:
    """One request: place, write, ran (written and run once), turns, run."""
    if verb == "place":
        return str(PLACE)
    if verb == "run":
        return run()
    if verb == "turns":
        turns(seed)
    else:
        write(seed)
    if verb == "ran":
        run()
    return "done"
