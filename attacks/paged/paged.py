"""Inside: records in more memory than its VM's EPC has. Its exports are the control's (attacks/spilling.py)."""

from __future__ import annotations

import records

from strongroom.inside import export

_memory, _place = records.room()


@export
def place(seed: bytes) -> bytes:
    """The address of the first record."""
    return str(_place).encode()


@export
def fill(seed: bytes) -> bytes:
    """See records.fill."""
    records.fill(_memory, seed)
    return b"filled"


@export
def wrong(seed: bytes) -> bytes:
    """See records.wrong."""
    return str(records.wrong(_memory, seed)).encode()
