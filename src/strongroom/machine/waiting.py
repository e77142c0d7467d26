"""Wait for descriptors with poll(2): select(2) knows no numbers above 1023, and a daemon with many runs has them."""

from __future__ import annotations

import select
from collections.abc import Iterable


def readable(descriptors: Iterable[int], seconds: float | None = None) -> set[int]:
    """Which of the descriptors can be read, or have an end or an error to tell; empty after ``seconds``."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {found for found, _ in poll.poll(None if seconds is None else max(0, round(seconds * 1000)))}
