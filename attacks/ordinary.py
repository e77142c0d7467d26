"""The control: an ordinary Python process that does what attacks/target does inside an enclave.

Reads lines from standard input, answers on standard output: `hold SEED` (hex) makes the marker and keeps it,
`intact SEED` says whether it is still what it was. `load` and `store` do what attacks/intruder.c does: other code in
the same process reads and overwrites the marker where it lies.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "target"))

import marker

for line in sys.stdin:
    verb, _, word = line.strip().partition(" ")
    seed = bytes.fromhex(word)
    if verb == "hold":
        print(marker.hold(seed).hex(), flush=True)
    elif verb == "intact":
        print("yes" if marker.intact(seed) else "no", flush=True)
    elif verb in ("load", "store"):
        address, size = marker.place()
        if verb == "store":
            ctypes.memset(address, 0x4A, size)
        print(ctypes.string_at(address, size).hex(), flush=True)
