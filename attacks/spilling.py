"""The control of the attack on evicted pages: an ordinary process that keeps its records in a page file of its own.

Reads lines from standard input, answers on standard output, as attacks/ordinary.py: `place`, `fill SEED`, `wrong SEED`
do what attacks/paged does inside an enclave.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "paged"))

import records

if __name__ == "__main__":
    with tempfile.TemporaryFile() as spill:
        spill.truncate(records.COUNT * records.PAGE)
        mapped = mmap.mmap(spill.fileno(), 0)
        memory = memoryview(mapped)
        first = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        for line in sys.stdin:
            verb, _, word = line.strip().partition(" ")
            seed = bytes.fromhex(word)
            if verb == "place":
                print(first, flush=True)
            elif verb == "fill":
                records.fill(memory, seed)
                print("filled", flush=True)
            elif verb == "wrong":
                print(records.wrong(memory, seed), flush=True)
