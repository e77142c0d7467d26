"""Sanitized programs, compiled once a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build

# A program that is killed is a finding; memory that is still held at its end is not.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99"}


class Asked:
    """A program that answers each line with a line."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def __call__(self, *words: object) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            assert self._process.stderr is not None
            raise AssertionError(f"{words}: {self._process.stderr.read()[:3000]}")
        return answer.strip()

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


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
