"""The image of the programs in programs/, made once; daemons ended with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import interpreter_image as guest

MANIFEST = """[enclave]
main = "python3"
memory = "24M"
args = true
[files]
"/data" = "encrypted:release:data"
"/own" = "encrypted:sealed:mrenclave:own"
"/sealed" = "encrypted:sealed:sealed"
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest.build(
        Path(__file__).parent / "programs", tmp_path_factory.mktemp("encrypted") / "p", MANIFEST
    )


@pytest.fixture
def project(built: Path, tmp_path: Path, strongroom_home: Path) -> Iterator[Path]:
    """A project with no data yet, in a STRONGROOM_HOME of its own; its ``data`` and ``sealed`` are the host's side."""
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "build").symlink_to(built / "build")
    with guest.daemon_ended():
        yield folder
