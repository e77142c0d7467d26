"""Inside: the measured part. It gets two keys from the data owner, and imports a model that only it can read."""

from __future__ import annotations

import sys

from strongroom.inside import export, owner

holder = owner(sys.argv[1])
key = holder.release_key("records")
holder.unlock("/model", "model")

sys.dont_write_bytecode = True
sys.path.insert(0, "/model")

from classifier import report  # noqa: E402 - ciphertext until now


@export
def score(sealed: bytes) -> bytes:
    """Records in, encrypted; report out, encrypted with the same key."""
    return key.encrypt(report(key.decrypt(sealed)))
