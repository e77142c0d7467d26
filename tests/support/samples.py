"""Real artefacts made by others: /work/shared/samples, or ``STRONGROOM_SAMPLES``. Absent: the test skips and
says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SAMPLES = Path(os.environ.get("STRONGROOM_SAMPLES", "/work/shared/samples"))


def sample(name: str) -> Path:
    """A sample's path."""
    path = SAMPLES / name
    if not path.is_file():
        pytest.skip(f"the real samples are not here ({path}; STRONGROOM_SAMPLES names their folder)")
    return path
