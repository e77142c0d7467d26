"""One home, daemon and VM for all guests of a module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guests import Guests
from support.interpreter_image import need_runtime


@pytest.fixture(scope="module")
def guests() -> Iterator[Guests]:
    need_runtime()
    parent = tempfile.mkdtemp(prefix="sr-guests-")
    made = Guests(Path(parent) / "h")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(parent, ignore_errors=True)
