"""``python3 -m strongroom.inside PROGRAM [ARGUMENT…]``: run a program, then serve the functions it exported."""

from __future__ import annotations

import sys

from strongroom.inside.program import run_program

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python3 -m strongroom.inside PROGRAM [ARGUMENT…]")
    run_program(sys.argv[1], sys.argv[2:])
