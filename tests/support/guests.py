"""Guest programs: built and run in enclaves for the tests of the LibOS; many checks to one start.

A guest is a Python file of ``check_NAME`` functions or a C file of ``CHECK(NAME)`` functions in ``tests/libos/guests``.
It prints one JSON line a check, ``{"check": NAME, "said": ""}``; ``said`` is what went wrong.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GUESTS = Path(__file__).resolve().parents[1] / "libos" / "guests"


def checks_of(guest: str) -> list[str]:
    """Names of a guest's checks, from its text: a check that never ran is then noticed."""
    text = (GUESTS / guest).read_text()
    if guest.endswith(".c"):
        return re.findall(r"^CHECK\((\w+)\)", text, re.MULTILINE)
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return [node.name.removeprefix("check_") for node in functions if node.name.startswith("check_")]


@dataclass(frozen=True)
class Outcome:
    """One run of a guest: what each check said, and the process's own end."""

    said: dict[str, str]
    status: int
    stdout: str
    stderr: str

    def assert_ok(self, check: str) -> None:
        end = f"(status {self.status}, standard error ends: {self.stderr[-800:]})"
        assert check in self.said, f"{check} did not run {end}"
        assert self.said[check] == "", self.said[check]

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[str]) -> Outcome:
        said = {}
        for line in done.stdout.splitlines():
            if line.startswith('{"check"'):
                one = json.loads(line)
                said[one["check"]] = one["said"]
        return cls(said, done.returncode, done.stdout, done.stderr)


class Guests:
    """Projects in ``home``'s VM, which holds what a test may ask for; ``stop`` ends the daemon."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        self._variables = variables
        self._projects = home.parent / "projects"

    def strongroom(
        self, *words: str, timeout: float = 120, stdin: str | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "strongroom", *words],
            env=self.environment(), timeout=timeout, text=True, capture_output=True, cwd=cwd,
            **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )  # type: ignore[call-overload,no-any-return]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {**os.environ, "STRONGROOM_HOME": str(self.home), **self._variables}

    def start(self) -> None:
        done = self.strongroom("vm", "create", "guests", "--size", "Standard_DC4s_v3")
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        self.strongroom("daemon", "stop")

    def build(self, name: str, files: dict[str, str | bytes | Path], manifest: str) -> Path:
        """A built project of ``files`` (content, or a file to copy)."""
        project = self._projects / name
        project.mkdir(parents=True)
        for path, content in files.items():
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                (project / path).write_bytes(content.read_bytes())
                (project / path).chmod(content.stat().st_mode & 0o777)
            else:
                (project / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        (project / "enclave.toml").write_text(manifest)
        done = self.strongroom("build", str(project), timeout=300)
        assert done.returncode == 0, done.stderr
        return project

    def run_command(self, project: Path, *arguments: str) -> list[str]:
        words = [sys.executable, "-m", "strongroom", "run", "--vm", "guests", str(project)]
        return [*words, "--", *arguments] if arguments else words

    def run(
        self, project: Path, *arguments: str, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.strongroom(*self.run_command(project, *arguments)[3:], timeout=timeout, stdin=stdin)

    def checks(self, guest: str, manifest: str = "", timeout: float = 120) -> Outcome:
        """Build and run a Python guest; ``manifest`` is what follows ``main``."""
        files: dict[str, str | bytes | Path] = {"main.py": GUESTS / guest, "checks.py": GUESTS / "checks.py"}
        project = self.build(guest.replace(".", "-"), files, f'[enclave]\nmain = "main.py"\n{manifest}')
        return Outcome.of(self.run(project, timeout=timeout))


def outside(guest: str) -> Outcome:
    """The same Python guest in an ordinary process: the control, where every check must hold."""
    done = subprocess.run(
        [sys.executable, "-B", str(GUESTS / guest)], capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Outcome.of(done)
