"""The CPython that goes inside: asked about itself, and made to compile our byte code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.image import elf, python_probe

_PROBE = Path(python_probe.__file__)
_FLAGS = ("-I", "-B", "-W", "ignore")
WORKERS = 2
MIN_VERSION = (3, 11)  # what strongroom.inside is written for


@dataclass(frozen=True)
class Interpreter:
    """Facts of one CPython. Paths are the host's; ``name`` is ``python3.11``, the library folder's name."""

    executable: Path
    version: str
    cache_tag: str
    tag: str  # everything that byte code depends on
    stdlib: Path
    dynload: Path
    site_directories: tuple[Path, ...]
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return self.stdlib.name


def ask(python: str | None) -> Interpreter:
    """Ask an interpreter (default: the one that runs us). Raises StrongroomError where it will not do."""
    program = python or sys.executable
    facts = _run([program, *_FLAGS, str(_PROBE), "facts"], None, program)
    if facts["implementation"] != "cpython":
        raise StrongroomError(f"{program} is {facts['implementation']}", "name a CPython with --python")
    if facts["machine"] != "x86_64" or facts["environment"]["sys_platform"] != "linux":
        raise StrongroomError(f"{program} is not for x86-64 Linux", "name another interpreter with --python")
    if tuple(int(part) for part in facts["version"].split(".")[:2]) < MIN_VERSION:
        raise StrongroomError(
            f"{program} is CPython {facts['version']}",
            f"name CPython {'.'.join(map(str, MIN_VERSION))} or later",
        )
    executable = Path(os.path.realpath(facts["executable"]))
    with executable.open("rb") as file:
        if not elf.is_elf(file.read(4)):
            raise StrongroomError(
                f"{program} leads to {executable}, which is a script", "name the program itself"
            )
    return Interpreter(
        executable=executable,
        version=facts["version"],
        cache_tag=facts["cache_tag"],
        tag=f"{facts['cache_tag']} {facts['magic']} {facts['build']}",
        stdlib=Path(facts["stdlib"]),
        dynload=Path(facts["dynload"]),
        site_directories=tuple(
            Path(one) for one in facts["path"] if Path(one).name in ("site-packages", "dist-packages")
        ),
        environment=facts["environment"],
    )


def _run(command: list[str], text: str | None, program: str) -> Any:
    try:
        # No PYTHON* variable, no HOME: -I ignores the first, and nothing may depend on the second.
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="surrogateescape", check=False,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "PYENV_VERSION": ""}
            | {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYENV_ROOT") if name in os.environ},
        )  # fmt: skip
        if done.returncode == 0:
            return json.loads(done.stdout)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    except (OSError, ValueError) as error:
        last = getattr(error, "strerror", None) or str(error)
    raise StrongroomError(f"cannot use {program} as the interpreter ({last})", "name a CPython with --python")


@dataclass(frozen=True)
class Source:
    """One ``.py`` file: where the host has it, and its inside path (which tracebacks show)."""

    host: Path
    inside: str


def compile_sources(
    by: Interpreter, sources: Iterable[Source], cache: Path | None = None
) -> tuple[dict[str, Path], dict[Path, str]]:
    """Byte code for each source, from the cache where it is there.

    Returns inside path of the source -> file that holds its ``.pyc``, and host path -> error for what does not compile.
    What a cached file holds depends on the interpreter, the inside path and the source alone.
    """
    place = cache or paths.ensure_home() / "cache" / "pyc"
    found: dict[str, Path] = {}
    tasks: list[list[str]] = []
    for source in sources:
        try:
            content = source.host.read_bytes()
        except OSError as error:
            raise StrongroomError(
                f"cannot read {source.host} ({error.strerror})", "make it readable"
            ) from error
        digest = hashlib.sha256(content).hexdigest()
        key = hashlib.sha256(json.dumps([by.tag, source.inside, digest]).encode()).hexdigest()
        output = place / key[:2] / key[2:]
        found[source.inside] = output
        if not output.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            tasks.append([str(source.host), source.inside, str(output)])
    failed: dict[Path, str] = {}
    if tasks:
        from concurrent.futures import ThreadPoolExecutor

        shares = [tasks[number::WORKERS] for number in range(WORKERS)]
        command = [str(by.executable), *_FLAGS, "-S", str(_PROBE), "compile"]
        with ThreadPoolExecutor(WORKERS) as pool:
            for answer in pool.map(
                lambda share: _run(command, json.dumps(share), str(by.executable)) if share else [], shares
            ):
                failed |= {Path(host): text for host, text in answer}
    bad = {inside for host, inside, _ in tasks if Path(host) in failed}
    return {inside: output for inside, output in found.items() if inside not in bad}, failed
