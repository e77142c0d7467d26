"""tools/machine boots a guest that has this checkout, runs a command in it and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted((ROOT / "build" / "machine").glob("linux-image-*"))

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("qemu-system-x86_64"), reason="no QEMU: apt-get install qemu-system-x86"
    ),
    pytest.mark.skipif(not KERNELS, reason="no kernel for a guest: make machine COMMAND=true downloads it"),
]


def machine(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "tools" / "machine" / "machine.py"), f"--kernel={KERNELS[0].name}"]
    return subprocess.run(
        [*words, *options, "--", command], capture_output=True, text=True, timeout=300, check=False
    )


def test_a_command_runs_in_a_guest_of_its_own(tmp_path: Path) -> None:
    """Its status and output come back; it is in this checkout, on another kernel, and what it writes stays there."""
    mark = ROOT / "build" / "written-in-a-guest"
    done = machine("head -1 Makefile; uname -r; id -u; exit 7", "--uid=1000")
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (ROOT / "Makefile").read_text().splitlines()[0]
    assert lines[1] in KERNELS[0].name and lines[2] == "1000"
    done = machine(f"touch {mark} && ls {mark}", "--cpu=max,-pku")
    assert done.returncode == 0 and str(mark) in done.stdout
    assert not mark.exists()


def test_a_guest_that_does_not_end_is_ended() -> None:
    done = machine("sleep 1000", "--time=15")
    assert done.returncode == 124
    assert "time is over" in done.stderr
