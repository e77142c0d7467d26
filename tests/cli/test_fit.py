"""`strongroom fit`: what is said beforehand is what a run then does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.cli.fit import Row, judge
from strongroom.errors import StrongroomError
from strongroom.machine import client
from strongroom.machine.launch import Demand, demand_of
from support.interpreter_image import need_paging, need_runtime

MIB = 256
PROGRAM = """\
import hashlib, sys, time
blocks = [bytes([number]) * (1 << 20) for number in range(int(sys.argv[1]))]
print(hashlib.sha256(b"".join(blocks)).hexdigest())
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


def verdicts(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.size.removeprefix("Standard_"), row.text) for row in rows]


def test_sizes_of_sgx1_and_the_first_of_sgx2_that_holds_it() -> None:
    small = 20 * MIB
    assert verdicts(judge(Demand(small, 5, small, False))) == [
        (name, "holds it") for name in ("DC1s_v2", "DC2s_v2", "DC4s_v2", "DC8_v2", "DC1s_v3")
    ]
    large = 6 * 1024 * MIB
    rows = judge(Demand(large, 5, large, False))
    assert verdicts(rows)[0] == (
        "DC1s_v2",
        "refused: 6144.0 MiB are more than its EPC and its 4 GiB of memory",
    )
    assert verdicts(rows)[1] == ("DC2s_v2", "pages: 6088.0 MiB of 6144.0 MiB do not fit at once")
    assert verdicts(rows)[-1] == ("DC2s_v3", "holds it")


def test_pages_that_stay_and_images_for_sgx2() -> None:
    rows = judge(Demand(60 * MIB, 30 * MIB, 60 * MIB, False))
    assert rows[0].text == "refused: 30.0 MiB of TCSs and SECS cannot be evicted: make `threads` smaller"
    assert [row.verdict for row in rows] == ["refused", "pages", "holds", "holds", "holds"]
    rows = judge(Demand(60 * MIB, 5, 5000 * MIB, True))
    assert [row.verdict for row in rows] == ["refused"] * 4 + ["pages", "holds"]
    assert rows[0].text == "refused: edmm = true needs SGX2"
    assert rows[-2].size == "Standard_DC1s_v3"
    assert rows[-2].text.endswith("do not fit at once, if it uses its whole heap")
    assert rows[-1].size == "Standard_DC2s_v3"
    rows = judge(Demand(60 * MIB, 5, 512 * 1024 * MIB, True))
    assert rows[-1].text.endswith("do not fit at once, if it uses its whole heap")


@pytest.mark.parametrize("facts", [{}, {"epc_size": -1}, {"epc_size": "x", "regions": [1, {"size": None}]},
                                   {"regions": {}, "heap": 3, "manifest": {"edmm": True}}])  # fmt: skip
def test_any_facts_give_a_demand(facts: dict[str, object]) -> None:
    assert judge(demand_of(facts))


@pytest.fixture
def project(strongroom_home: Path, tmp_path: Path) -> Iterator[Path]:
    need_runtime()
    need_paging()
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / "enclave.toml").write_text('[enclave]\nmain = "main.py"\nmemory = "64M"\nargs = true\n')
    done = strongroom("build", str(tmp_path))
    assert done.returncode == 0, done.stderr
    yield tmp_path
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


def strongroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *words], capture_output=True, text=True, timeout=200, check=False
    )


def vms() -> list[str]:
    return [vm["name"] for vm in json.loads(strongroom("vm", "list", "--json").stdout)]


def test_measured(project: Path) -> None:
    done = strongroom("fit", str(project), "--run", "--json", "--", "20", "0", "3")
    assert done.returncode == 1, done.stderr  # the program's own status is not 0
    rows = json.loads(done.stdout)
    assert len(rows) == 5
    for row in rows:
        told = row["measured"]
        assert told["status"] == 3
        assert (told["evicted"] > 0) == (row["verdict"] == "pages"), row
        assert told["needed_mib"] <= row["needs_mib"] + 1
    assert rows[0]["measured"]["evicted"] > rows[1]["measured"]["evicted"]
    assert vms() == []


def test_ctrl_c_and_a_kill_leave_no_vm(project: Path) -> None:
    command = [sys.executable, "-m", "strongroom", "fit", str(project), "--run", "--", "1", "1000", "0"]

    def started() -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not any(name.startswith(f"fit-{process.pid}-") for name in vms()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        return process

    with started() as process:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]
    assert vms() == []
    with started() as process:
        process.kill()
    assert len(vms()) == 1  # it is listed, and the next one removes it
    done = strongroom("fit", str(project), "--run", "--", "1", "0", "0")
    assert done.returncode == 0, done.stderr
    assert vms() == []


def test_bad_words(project: Path, tmp_path: Path) -> None:
    done = strongroom("fit", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stderr) == (
        1,
        f"strongroom: {tmp_path}/nowhere has no built image: run `strongroom build {tmp_path}/nowhere`\n",
    )
    assert strongroom("fit", str(project), "--", "x").returncode == 2
    (project / "build" / "enclave.json").write_text("{")
    done = strongroom("fit", str(project))
    assert done.returncode == 1
    assert "is not JSON" in done.stderr
