"""Inside: the part of the hospital's program that sees patients' records."""

from __future__ import annotations

import sys

from classifier import report

from strongroom.inside import export, owner

key = owner(sys.argv[1]).release_key("records")


@export
def score(sealed: bytes) -> bytes:
    """Records in, encrypted; report out, encrypted with the same key."""
    return key.encrypt(report(key.decrypt(sealed)))
