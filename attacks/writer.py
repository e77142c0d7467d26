"""The control of the attack on code made at run time: an ordinary process that writes and runs the same function.

Reads lines from standard input, answers on standard output, as attacks/ordinary.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "late"))

import written

if __name__ == "__main__":
    for line in sys.stdin:
        verb, _, word = line.strip().partition(" ")
        print(written.serve(verb, bytes.fromhex(word)), flush=True)
