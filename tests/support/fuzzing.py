"""How much random input: what a test names, times STRONGROOM_FUZZ (`make fuzz`)."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("STRONGROOM_FUZZ", "1"))


def examples(count: int) -> int:
    """For ``settings(max_examples=…)``."""
    return count * FACTOR
