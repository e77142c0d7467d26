"""Inside: code made at run time. Its exports are the control's (attacks/writer.py)."""

from __future__ import annotations

import written

from strongroom.inside import export


@export
def place(seed: bytes) -> bytes:
    """The code's address."""
    return written.serve("place", seed).encode()


@export
def write(seed: bytes) -> bytes:
    """See written.write."""
    return written.serve("write", seed).encode()


@export
def ran(seed: bytes) -> bytes:
    """Written and run."""
    return written.serve("ran", seed).encode()


@export
def turns(seed: bytes) -> bytes:
    """See written.turns."""
    return written.serve("turns", seed).encode()


@export
def run(seed: bytes) -> bytes:
    """See written.run."""
    return written.serve("run", seed).encode()
