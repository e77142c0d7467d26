"""Damaged images under ``run``: status 125, one line that says what to do, and the program has not run."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.errors import StrongroomError
from strongroom.machine import client
from support.interpreter_image import need_runtime


def _flip(place: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

    return change


def _cut(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_runtime()
    project = tmp_path_factory.mktemp("damaged") / "p"
    project.mkdir()
    (project / "main.py").write_text("print('it ran')\n")
    (project / "enclave.toml").write_text('[enclave]\nmain = "main.py"\nmemory = "16M"\n')
    strongroom("build", str(project))
    return project


def strongroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def vm(strongroom_home: Path) -> Iterator[None]:
    yield
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("enclave.sgxs", _cut(100_000)),
        ("enclave.sgxs", _flip(200_000)),
        ("enclave.sig", _cut(1807)),
        ("enclave.sig", _flip(1000)),
        ("files.pack", _cut(5000)),
        ("files.pack", _flip(3000)),
    ],
    ids=["pages cut", "pages changed", "signature cut", "signature changed", "files cut", "files changed"],
)
def test_damage_is_named(
    built: Path, tmp_path: Path, vm: None, name: str, damage: Callable[[Path], None]
) -> None:
    copy = Path(shutil.copytree(built, tmp_path / "p"))
    damage(copy / "build" / name)
    done = strongroom("run", str(copy))
    assert (done.returncode, done.stdout) == (125, "")
    assert "build" in done.stderr.splitlines()[-1]
    control = strongroom("run", str(built))
    assert (control.returncode, control.stdout) == (0, "it ran\n")
