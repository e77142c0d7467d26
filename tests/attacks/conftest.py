"""Daemons that the attacks start are ended with their test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import StrongroomError
from strongroom.machine import client
from support.interpreter_image import need_runtime


@pytest.fixture
def machine(strongroom_home: Path) -> Iterator[Path]:
    """STRONGROOM_HOME where programs can be started; skips where the C parts are not built."""
    need_runtime("strongroom-inject", "libstrongroom-processor.elf")
    yield strongroom_home
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


@pytest.fixture
def runtime(machine: Path) -> Path:
    """The same, where Python enclaves can be started as well."""
    need_runtime("libos.elf", "strongroom-loader")
    return machine
