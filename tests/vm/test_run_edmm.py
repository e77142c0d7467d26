"""A heap that comes when it is used (SGX2): 4 GiB of it cost what is used, and go back when they are not."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import StrongroomError
from strongroom.machine import client
from support.interpreter_image import need_runtime

PROGRAM = """\
import hashlib, mmap, sys, threading
def say(text):
    print(text, flush=True)
    sys.stdin.readline()
say("started")
big = bytearray(b"x" * (200 << 20))
say("grown")
del big
say("shrunk")
again = mmap.mmap(-1, 160 << 20)
assert again[:: 4096] == bytes(len(again) // 4096), "pages that come back are zero"
again.close()
def fill(number, sums):
    block = bytes([number]) * (8 << 20)
    sums[number] = hashlib.sha256(block).hexdigest()
sums = {}
threads = [threading.Thread(target=fill, args=(number, sums)) for number in range(6)]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert sums == {n: hashlib.sha256(bytes([n]) * (8 << 20)).hexdigest() for n in range(6)}
try:
    bytearray(5 << 30)
except MemoryError:
    say("refused")
"""


@pytest.fixture
def project(strongroom_home: Path, tmp_path: Path) -> Iterator[Path]:
    need_runtime()
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / "enclave.toml").write_text(
        '[enclave]\nmain = "main.py"\nmemory = "4G"\nthreads = 8\nedmm = true\n'
    )
    yield tmp_path
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


def strongroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *words], capture_output=True, text=True, timeout=200, check=False
    )


def used() -> float:
    (vm,) = json.loads(strongroom("vm", "list", "--json").stdout)
    return float(vm["epc_used_mib"])


def test_the_heap_comes_and_goes(project: Path) -> None:
    built = strongroom("build", "--json", str(project))
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["epc_size"] < 64 << 20
    assert strongroom("vm", "create", "new", "--size", "Standard_DC1s_v3").returncode == 0
    words = [sys.executable, "-m", "strongroom", "run", "--vm", "new", str(project)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None

        def next_step(expected: str) -> float:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == f"{expected}\n", process.stderr and process.stderr.read()
            amount = used()
            process.stdin.write("\n")
            process.stdin.flush()
            return amount

        started, grown, shrunk = next_step("started"), next_step("grown"), next_step("shrunk")
        assert 10 < started < 64
        assert 190 < grown - started < 460  # the program has it twice for a moment
        assert shrunk < 200
        next_step("refused")
        assert process.wait(60) == 0
    assert used() == 0


def test_sgx1_is_refused_by_name(project: Path) -> None:
    assert strongroom("build", str(project)).returncode == 0
    done = strongroom("run", str(project))
    assert done.returncode == 125
    assert done.stderr == (
        "strongroom: the image has edmm = true, which needs SGX2; VM default (Standard_DC2s_v2) has SGX1: run it in a "
        "DCsv3 VM (`strongroom vm create NAME --size Standard_DC1s_v3`), or build it without edmm\n"
    )
