"""A Python enclave several times its VM's EPC: right results, and the line at the end that says what it cost."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.machine import client

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
    for name in sorted(paths.NATIVE_NAMES):
        if not (paths.native_directory() / name).is_file():
            pytest.skip(f"{name} is not built: run `make`")
    if " aes " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AES-NI: nothing is paged")
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / "enclave.toml").write_text('[enclave]\nmain = "main.py"\nmemory = "96M"\nargs = true\n')
    yield tmp_path
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


def strongroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *words], capture_output=True, text=True, timeout=200, check=False
    )


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
