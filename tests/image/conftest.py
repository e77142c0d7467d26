"""For tests that build images: a LibOS's form, and one cache of byte code and call sites for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.image.build import BuildResult, build
from support.programs import make_libos

Build = Callable[..., BuildResult]


@pytest.fixture(scope="session")
def libos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has the form of libos.elf."""
    return make_libos(tmp_path_factory.mktemp("libos"))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def image(libos: Path, shared_cache: Path, strongroom_home: Path) -> Iterator[Build]:
    """``image(folder, {name: content}, manifest text)`` writes a project and builds it with that LibOS."""
    strongroom_home.mkdir(parents=True, mode=0o700)
    (strongroom_home / "cache").symlink_to(shared_cache)

    def make(
        folder: Path, files: dict[str, str | bytes] | None = None, manifest: str = "", **named: Any
    ) -> BuildResult:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (files or {}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if manifest:
            (folder / "enclave.toml").write_text(manifest)
        return build(folder, libos=libos, **named)

    yield make
