"""Programs run inside an enclave for tests: a folder of programs becomes one image, whose main is the interpreter."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.machine import client


def need_runtime(*names: str) -> None:
    """Skips where the C parts, or the ones named, are not built."""
    for name in names or sorted(paths.NATIVE_NAMES):
        if not (paths.native_directory() / name).is_file():
            pytest.skip(f"{name} is not built: run `make`")


def need_paging() -> None:
    """Skips where this processor cannot encrypt what is evicted."""
    if " aes " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AES-NI: nothing is paged")


def strongroom(
    *words: str | Path, timeout: float = 120, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *map(str, words)], capture_output=True, text=True, timeout=timeout,
        check=False, env={**os.environ, **(environment or {})}, input=stdin,
    )  # fmt: skip


def build(programs: Path, project: Path, manifest: str) -> Path:
    """``project``, made of the folder ``programs`` and a manifest, and built."""
    need_runtime()
    shutil.copytree(programs, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "enclave.toml").write_text(manifest)
    done = strongroom("build", project)
    assert done.returncode == 0, done.stderr
    return project


def inside(project: Path, program: str, *arguments: str, vm: str = "default") -> str:
    """What ``program`` printed inside. The status is 0, and standard error has our line and perhaps the LibOS's."""
    done = strongroom("run", "--vm", vm, project, "--", f"/app/{program}", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@contextlib.contextmanager
def daemon_ended() -> Iterator[None]:
    """Ends the daemon of this STRONGROOM_HOME afterwards."""
    try:
        yield
    finally:
        with contextlib.suppress(StrongroomError):
            client.ask("stop", start=False)
