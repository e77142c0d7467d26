"""Inside: what the attacks are after. Its exports are the control's (attacks/ordinary.py)."""

from __future__ import annotations

import marker

from strongroom.inside import export


@export
def hold(seed: bytes) -> bytes:
    """See marker.hold."""
    return marker.hold(seed)


@export
def intact(seed: bytes) -> bytes:
    """b"yes" or b"no"."""
    return b"yes" if marker.intact(seed) else b"no"
