"""A Python enclave several times its VM's EPC: right results, and the line at the end that says what it cost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from native import images
from strongroom.cli._attack_targets import (
    programs,
)
from strongroom.errors import StrongroomError
from strongroom.image.signer import KeySigner
from strongroom.machine import client
from support.interpreter_image import need_paging, need_runtime

PROGRAM = """\
import hashlib, sys
blocks = [bytes([number % 256]) * (1 << 20) for number in range(int(sys.argv[1]))]
wanted = [hashlib.sha256(block).digest() for block in blocks]
for _ in range(3):
    assert [hashlib.sha256(block).digest() for block in blocks] == wanted
print("all there")
"""


@pytest.fixture
def project(strongroom_home: Path, tmp_path: Path) -> Iterator[Path]:
    need_runtime()
    need_paging()
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / "enclave.toml").write_text('[enclave]\nmain = "main.py"\nmemory = "96M"\nargs = true\n')
    yield tmp_path
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


def strongroom(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "strongroom", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=cwd)


def test_a_run_larger_than_the_epc(project: Path) -> None:
    assert strongroom("build", str(project)).returncode == 0
    assert strongroom("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0
    done = strongroom("run", "--vm", "small", str(project), "--", "60")
    assert (done.returncode, done.stdout) == (0, "all there\n"), done.stderr
    told = done.stderr.splitlines()
    assert len(told) == 2
    assert re.fullmatch(
        r"strongroom: evicted [\d,]+ pages, \d+\.\d s of \d+\.\d s; Standard_DC8_v2 would hold it", told[1]
    )
    done = strongroom("run", "--json", "--vm", "small", str(project), "--", "60")
    facts = json.loads(done.stderr.splitlines()[1])
    assert facts["epc_peak_pages"] <= 28 * 256 < facts["epc_demand_pages"]
    assert facts["loaded"] > 60 << 8
    assert facts["size_that_holds_it"] == "Standard_DC8_v2"
    assert strongroom("vm", "create", "large", "--size", "Standard_DC8_v2").returncode == 0
    done = strongroom("run", "--vm", "large", str(project), "--", "60")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr


MARKED = """\
import sys
marker = bytes(reversed(b"6e72e9a1-4c0d-koobtopyna"[:24]))
blocks = [marker * 43690 for _ in range(48)]
print("up", flush=True)
sys.stdin.readline()
assert all(block.count(marker) == 43690 for block in blocks)
print("all there", flush=True)
sys.stdin.readline()
"""
MARKER = bytes(reversed(b"6e72e9a1-4c0d-koobtopyna"[:24]))


def found_in(pid: int) -> tuple[int, int]:
    """How often MARKER stands in what root can read of a process by /proc/PID/mem, and how many MiB that was."""
    hits = size = 0
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if end > 1 << 47 or "r" not in line.split()[1]:
                continue
            for at in range(start, end, 1 << 20):
                try:
                    memory.seek(at)
                    data = memory.read(min(1 << 20, end - at))
                except OSError:
                    continue
                hits += data.count(MARKER)
                size += len(data)
    return hits, size >> 20


@pytest.mark.skipif(os.geteuid() != 0, reason="looking into another user's process needs root")
def test_what_was_evicted_is_not_in_the_clear(project: Path) -> None:
    """Root searches a paged enclave's process, where its ciphertext lies; the control: the same program outside."""
    if json.loads(strongroom("doctor", "--json").stdout)["level"] != "sealed":
        pytest.skip("level sealed is not to be had: root reads the pages that are in the EPC")
    (project / "main.py").write_text(MARKED)
    assert strongroom("build", str(project)).returncode == 0
    assert strongroom("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0
    words = [sys.executable, "-m", "strongroom", "run", "--vm", "small", str(project)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "up\n", process.stderr.read()
        (pid,) = programs("small")
        hits, size = found_in(pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "all there\n"
        assert (found_in(pid)[0], hits) == (0, 0)
        assert size > 40, "the ciphertext of what was evicted was among what was read"
        process.stdin.close()
        assert process.wait(60) == 0
        assert "evicted" in process.stderr.read()
    with subprocess.Popen([sys.executable, str(project / "main.py")], **pipes) as control:  # type: ignore[call-overload]
        assert control.stdout.readline() == "up\n"
        assert found_in(control.pid)[0] > 2_000_000
        control.kill()


def test_exec_says_so_too(strongroom_home: Path, tmp_path: Path) -> None:
    """A C enclave of 40 MiB on the software processor, by a shell that starts it twice."""
    need_paging()
    images.compile_all()
    mrenclave = images.build_image(tmp_path / "e.sgxs", heap_pages=10240)
    images.sign_image(mrenclave, tmp_path / "e.sig", KeySigner.generate())
    shutil.copy(images.BUILD / "pager", tmp_path)
    try:
        assert strongroom("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0
        walk = f"./pager walk e.sgxs e.sig {images.HEAP:#x} 10240 2"
        done = strongroom("exec", "--vm", "small", "--", "/bin/sh", "-c", f"{walk} && {walk}", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "bad 0\n" * 4), done.stderr
        assert re.fullmatch(
            r"strongroom: evicted [\d,]+ pages, .*; Standard_DC4s_v2 would hold it",
            done.stderr.splitlines()[-1],
        )
    finally:
        with contextlib.suppress(StrongroomError):
            client.ask("stop", start=False)
