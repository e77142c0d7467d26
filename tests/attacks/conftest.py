"""Daemons that the attacks start are ended with their test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.machine import client


@pytest.fixture
def machine(strongroom_home: Path) -> Iterator[Path]:
    """STRONGROOM_HOME where programs can be started; skips where the C parts are not built."""
    for name in ("strongroom-inject", "libstrongroom-processor.elf"):
        if not (paths.native_directory() / name).is_file():
            pytest.skip(f"{name} is not built: run `make`")
    yield strongroom_home
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


@pytest.fixture
def runtime(machine: Path) -> Path:
    """The same, where Python enclaves can be started as well."""
    for name in ("libos.elf", "strongroom-loader"):
        if not (paths.native_directory() / name).is_file():
            pytest.skip(f"{name} is not built: run `make`")
    return machine
