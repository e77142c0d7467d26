"""What the tests of VMs share beside their fixtures."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Command(Protocol):
    """The command line as one user (made in tests/vm/conftest.py)."""

    home: Path
    native: Path
    uid: int

    def __call__(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]: ...

    def popen(self, *words: str, **more: object) -> Any: ...


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until ``condition`` holds; fails after ``seconds`` (a deadline for a hang, not a measurement)."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
