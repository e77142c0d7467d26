"""One home, daemon and VM for all guests of a module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import paths
from support.guests import Guests


@pytest.fixture(scope="module")
def guests() -> Iterator[Guests]:
    for name in sorted(paths.NATIVE_NAMES):
        if not (paths.native_directory() / name).is_file():
            pytest.skip(f"{name} is not built: run `make`")
    parent = tempfile.mkdtemp(prefix="sr-guests-")
    made = Guests(Path(parent) / "h")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(parent, ignore_errors=True)
