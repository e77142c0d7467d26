"""Inside: what the attacks are after. Its exports are the control's (attacks/ordinary.py)."""

from __future__ import annotations

import hashlib

import marker

from strongroom.inside import Attestation, export


@export
def hold(seed: bytes) -> bytes:
    """See marker.hold."""
    return marker.hold(seed)


@export
def intact(seed: bytes) -> bytes:
    """b"yes" or b"no"."""
    return b"yes" if marker.intact(seed) else b"no"


@export
def use(seed: bytes) -> bytes:
    """Computes with the marker for half a second."""
    return str(marker.use(0.5)).encode()


@export
def key(seed: bytes) -> bytes:
    """SHA-256 of the sealing key, which proves what it is and does not show it."""
    return hashlib.sha256(Attestation().key("_sgx_mrenclave")).digest()
