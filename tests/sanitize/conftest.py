"""Sanitized programs, compiled once a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from asked import Asked

import build


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a sanitized program by name. Skips where the compiler has no sanitizers."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("sanitized")
    (folder / "try.c").write_text("int main(void) { return 0; }")
    words = [*build.CHECKED, "-o", str(folder / "try"), str(folder / "try.c")]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("this compiler has no address sanitizer")

    def made(name: str) -> Path:
        return folder / name if (folder / name).exists() else build.program(name, folder)

    return made


@pytest.fixture
def ask() -> Iterator[Callable[..., Asked]]:
    started: list[Asked] = []

    def start(*words: str) -> Asked:
        started.append(Asked(*words))
        return started[-1]

    yield start
    for one in started:
        one.close()
