"""A STRONGROOM_HOME, a daemon and VMs for the time of the benchmarks, and programs in and out of enclaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.image.build import build
from strongroom.machine import launch

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
VM1, VM2 = "bench-sgx1", "bench-sgx2"
SIZE1, SIZE2 = "Standard_DC4s_v2", "Standard_DC2s_v3"
SECONDS = 300.0


@dataclass(frozen=True)
class Started:
    """One run: when things happened (seconds, CLOCK_MONOTONIC) and what it said."""

    request: float
    ready: float
    first: float
    end: float
    out: str
    err: str

    def steps(self) -> dict[str, float]:
        """The loader's own times, in seconds, by name."""
        for line in self.err.splitlines():
            if line.startswith("strongroom-loader: timing "):
                words = line.split()[2:]
                return {name: int(value) / 1e9 for name, value in (word.split("=") for word in words)}
        return {}


@dataclass(frozen=True)
class Room:
    """Where images are built and run."""

    folder: Path
    level: str

    def image(self, name: str, manifest: str, files: dict[str, bytes | str]) -> Path:
        """Build a project of these files."""
        project = self.folder / "projects" / name
        project.mkdir(parents=True, exist_ok=True)
        (project / "enclave.toml").write_text(manifest)
        for file, content in files.items():
            path = project / file
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(0o755)
        build(project)
        return project

    def inside(self, project: Path, vm: str = VM1, *, settle: float) -> Started:
        """Run an image to its end, ``settle`` seconds from now."""
        time.sleep(settle)
        out_read, out_write = os.pipe()
        with tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            with launch.open_image(project) as image:
                request = time.monotonic()
                run = launch.prepare(
                    image, vm, environment={}, stdio=(nothing.fileno(), out_write, err.fileno()), timing=True
                )
                with run:
                    ready = time.monotonic()
                    run.go()
                    os.close(out_write)
                    out = os.read(out_read, 1)
                    first = time.monotonic()
                    while part := os.read(out_read, 65536):
                        out += part
                    os.close(out_read)
                    status = run.wait(SECONDS)
                    end = time.monotonic()
            err.seek(0)
            said = err.read().decode(errors="replace")
        if status != 0:
            raise RuntimeError(f"{project.name} ended with {status} inside: {said}")
        return Started(request, ready, first, end, out.decode(), said)


def outside(command: list[str], cwd: Path | None = None, *, settle: float) -> Started:
    """The same program as an ordinary process, ``settle`` seconds from now."""
    time.sleep(settle)
    with tempfile.TemporaryFile() as err:
        request = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, cwd=cwd
        )
        assert process.stdout is not None
        out = os.read(process.stdout.fileno(), 1)
        first = time.monotonic()
        out += process.stdout.read()
        status = process.wait(SECONDS)
        end = time.monotonic()
        process.stdout.close()
        err.seek(0)
        said = err.read().decode(errors="replace")
    if status != 0:
        raise RuntimeError(f"{command} ended with {status} outside: {said}")
    return Started(request, request, first, end, out.decode(), said)


def interpreter() -> str:
    """The interpreter that `strongroom build` puts inside."""
    return sys.executable


def _strongroom(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", *words],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"strongroom {' '.join(words)}: {done.stderr}")
    return done.stdout


@contextlib.contextmanager
def room() -> Iterator[Room]:
    """Two VMs, one of each generation, and their daemon; all of it gone afterwards."""
    before = os.environ.get("STRONGROOM_HOME")
    folder = Path(tempfile.mkdtemp(prefix="sr-bench-", dir="/tmp"))
    folder.chmod(0o755)
    os.environ["STRONGROOM_HOME"] = str(folder / "h")
    try:
        _strongroom("vm", "create", VM1, "--size", SIZE1)
        _strongroom("vm", "create", VM2, "--size", SIZE2)
        facts: dict[str, Any] = json.loads(_strongroom("doctor", "--json"))
        yield Room(folder, str(facts["level"]))
    finally:
        with contextlib.suppress(RuntimeError):
            _strongroom("daemon", "stop")
        if before is None:
            del os.environ["STRONGROOM_HOME"]
        else:
            os.environ["STRONGROOM_HOME"] = before
        shutil.rmtree(folder, ignore_errors=True)
