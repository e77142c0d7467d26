"""What may not be done to this machine is done to a guest of it: its clock is set, it hibernates. Minutes each."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hibernation import HOLDER

ROOT = Path(__file__).resolve().parents[2]
KERNELS = sorted((ROOT / "build" / "machine").glob("linux-image-*"))
HERE = Path(__file__).resolve().parent

pytestmark = [
    pytest.mark.skipif(
        "STRONGROOM_FAULTS" not in os.environ, reason="minutes in an emulated guest: make faults"
    ),
    pytest.mark.skipif(
        not shutil.which("qemu-system-x86_64"), reason="no QEMU: apt-get install qemu-system-x86"
    ),
    pytest.mark.skipif(not KERNELS, reason="no kernel for a guest: make machine COMMAND=true downloads it"),
    pytest.mark.timeout(1500),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """In the checkout, which the guest sees, and not in /tmp, which it has of its own."""
    with tempfile.TemporaryDirectory(prefix="guest-", dir=ROOT / "build") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def guest(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        str(ROOT / "tools" / "machine" / "machine.py"),
        f"--kernel={KERNELS[0].name}",
        "--time=1400",
    ]
    return subprocess.run([*words, *options, "--", command], capture_output=True, text=True, check=False)


def test_the_clock_is_set_under_a_running_enclave(place: Path) -> None:
    subprocess.run([sys.executable, HERE / "clock_steps.py", place, "build"], check=True)
    command = f"cp -a {place} /tmp/c && .venv/bin/python tests/faults/clock_steps.py /tmp/c"
    done = guest(command, "--append=secretmem.enable=1")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step"')]
    assert len(steps) == 5 and all(step["fine"] for step in steps)
    for step in steps:
        assert (step["vm list"]["status"], step["second run"]["status"], step["quote"]["status"]) == (
            0,
            0,
            0,
        ), step
        assert json.loads(step["daemon"]["out"])["seconds"] in range(3600), step
    verified = [(step["verify"]["status"], step["verify"]["err"]) for step in steps]
    assert [status for status, _ in verified] == [1, 0, 0, 1, 0], verified
    assert "begins" in verified[0][1] and "ended" in verified[3][1]


@pytest.mark.parametrize("cpu", ["max", "max,-pku"], ids=["keys", "no keys"])
def test_protection_keys(cpu: str) -> None:
    """With them, where this machine may have none, and without. (Paging is left out: an emulated AES-NI is slow.)"""
    native = " ".join(f"tests/native/test_{name}.py" for name in ("keys", "enclave", "edmm"))
    levels = "tests/vm/test_less.py" if cpu == "max" else ""
    words = f"-q -p no:cacheprovider --timeout=600 -k 'not pressure' {native} {levels}"
    done = guest(f".venv/bin/python -m pytest {words}", f"--cpu={cpu}", "--append=secretmem.enable=1")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert ("has no protection keys" in done.stdout) == (cpu != "max")


MANIFEST = '[enclave]\nmain = "main.py"\nmemory = "16M"\nargs = true\n'


@pytest.mark.parametrize(
    ("what", "append", "hibernates"),
    [("plain", "", True), ("enclave", "", True), ("enclave", "secretmem.enable=1", False)],
    ids=["ordinary process", "separated", "sealed"],
)
def test_hibernation(place: Path, what: str, append: str, hibernates: bool) -> None:
    """The marker is in the image of a plain process, and of an enclave without secret memory; else it is not."""
    (place / "enclave.toml").write_text(MANIFEST)
    (place / "main.py").write_text(HOLDER)
    subprocess.run([sys.executable, "-m", "strongroom", "build", place], check=True, capture_output=True)
    seed = secrets.token_bytes(24)
    marker = b"MARKER-" + bytes(65 + byte % 26 for byte in seed)
    disk = place / "disk"
    with disk.open("wb") as file:
        file.truncate(3 << 30)
    program = f".venv/bin/python tests/faults/hibernation.py {what if what == 'plain' else place} /dev/vda {seed.hex()}"
    done = guest(program, f"--append=hibernate=nocompress {append}", "--memory=2G", f"--disk={disk}")
    assert "states: freeze mem" in done.stdout, done.stdout + done.stderr
    if hibernates:
        assert "PM: hibernation: Image created" in done.stderr and marker_in(disk, marker)
    else:
        assert "disk in /sys/power/state: Operation not permitted" in done.stdout
        assert done.returncode == 0 and not marker_in(disk, marker)


def marker_in(disk: Path, marker: bytes) -> bool:
    """In what of a sparse file was written."""
    with disk.open("rb", buffering=0) as file:
        at, tail = 0, b""
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return False
            block = os.pread(file.fileno(), 1 << 20, at)
            if marker in tail + block:
                return True
            at, tail = at + len(block), block[-len(marker) :]
