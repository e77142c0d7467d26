"""The command line as one user or another, and waiting: what the tests of VMs and of faults share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NATIVE = REPOSITORY / "build" / "native"
NOBODY = 65534


class _Popen(subprocess.Popen[str]):
    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


@dataclass(frozen=True)
class Command:
    """The command line as one user: root runs it itself, or as nobody (an ordinary user) by setpriv."""

    home: Path
    native: Path
    uid: int

    def prefix(self) -> list[str]:
        if self.uid == os.geteuid():
            return [sys.executable]
        # The test's own interpreter may lie where others may not look.
        python = next(p for p in ("/usr/bin/python3.11", "/usr/bin/python3") if Path(p).exists())
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", python]

    def environment(self) -> dict[str, str]:
        site = Path(pytest.__file__).resolve().parent.parent
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home.parent),
            "STRONGROOM_HOME": str(self.home),
            "STRONGROOM_NATIVE": str(self.native),
            "PYTHONPATH": f"{REPOSITORY / 'src'}:{site}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }

    def popen(self, *words: str, **more: object) -> subprocess.Popen[str]:
        """As a context manager it does not outlive a test that fails: a program may sleep a long time."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": "/", **more}
        return _Popen(
            [*self.prefix(), "-m", "strongroom", *words],
            env=self.environment(),
            **options,  # type: ignore[call-overload]
        )

    def __call__(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        with self.popen(*words, stdin=subprocess.DEVNULL) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def best_level(self) -> str:
        return str(json.loads(self("doctor", "--json").stdout)["best_level"])


def _other_python_works() -> bool:
    for path in ("/usr/bin/python3.11", "/usr/bin/python3"):
        if Path(path).exists():
            done = subprocess.run(
                [path, "-c", "import sys; print(sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.strip() == str(sys.version_info[:2])
    return False


def users() -> list[object]:
    """root and an ordinary user where the tests run as root, else just this one."""
    if os.geteuid() != 0:
        return [pytest.param(os.geteuid(), id="user")]
    return [pytest.param(0, id="root"), pytest.param(NOBODY, id="nobody")]


def require_other_user(uid: int, home: Path) -> None:
    """Skip where the command cannot be run as ``uid``; else give it the folder that ``home`` will be in."""
    if uid == os.geteuid():
        return
    if shutil.which("setpriv") is None or not _other_python_works():
        pytest.skip("no setpriv, or no other python of this version, to be an ordinary user with")
    home.parent.parent.chmod(0o755)
    home.parent.chmod(0o755)
    os.chown(home.parent, uid, uid)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until ``condition`` holds; fails after ``seconds`` (a deadline for a hang, not a measurement)."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def command_line(pid: int) -> list[bytes]:
    """A process's words; none where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def descendants(ancestor: int) -> list[int]:
    """Processes below ``ancestor``: another daemon's programs on this machine are left alone."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue

    def below(pid: int) -> bool:
        while pid > 1:
            pid = parents.get(pid, 0)
            if pid == ancestor:
                return True
        return False

    return [pid for pid in parents if below(pid)]
