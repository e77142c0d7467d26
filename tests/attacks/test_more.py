"""The attacks beyond the demo's six, for real; their controls, the table, and what a lying loader meets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.cli import (
    _attack,
    _attack_evicted,
    _attack_late,
    _attack_more,
    _attack_outcomes,
    _attack_table,
    _attack_targets,
    _compiled,
    _intruder,
)
from strongroom.cli._projects import project
from strongroom.machine import level as levels

ORDER = [levels.Level.SEALED, levels.Level.SEPARATED, levels.Level.FAITHFUL]
# What this program may have no right to, or the kernel may not have: not tried then, at the control as well.
OFFERED_BY_SOME = {"hibernation image", "swap: all data paged out to a swap file",
                   "perf, samples of the user stack", "eBPF at each perf sample, reads memory",
                   "a uprobe outside the enclave, its eBPF program reads memory", "a uprobe in code pages",
                   "/proc/PID/map_files, opened and mapped",
                   "SIGABRT with core size unlimited: core file and logs"}  # fmt: skip


def found(level: str, *names: str) -> dict[str, _attack_outcomes.Outcome]:
    """By attempt."""
    outcomes = _attack.run_all("default", level, list(names), progress=False)
    assert _attack_outcomes.as_promised(outcomes), [
        one for one in outcomes if one.result in ("got", "not tried")
    ]
    by_name = {one.attempt: one for one in outcomes}
    for one in outcomes:
        kernel = "/dev/mem" in one.attempt
        assert one.control_result == "got" or one.attempt in OFFERED_BY_SOME or kernel, one
    return by_name


def test_at_the_best_level(runtime: Path) -> None:
    """All that is made on a running enclave; the kernel's tracing gets in, and is said to."""
    best = levels.best(levels.find_facts())
    names = set(_attack_more.MORE) - _attack_more.WITHIN - {"image", "late"}
    by_name = found(str(best), *names)
    assert by_name["the sealing key, from what is on the disk"].result == "got"
    assert by_name["pidfd_getfd on each descriptor, then mmap"].result in ("met", "refused")
    assert by_name["sockets and pipes, what lies in them"].result == "met"
    assert by_name["an older state of the sealed folder"].result == "got", "as on hardware"
    assert by_name["a byte of the sealed folder's files changed"].result == "refused"
    for name in list(_attack_evicted.TRIED)[1:]:
        assert by_name[name].result == "refused", by_name[name]
    assert by_name["evicted pages, searched for what was written"].result in ("met", "refused")
    for who in ("root", "an ordinary user") if os.geteuid() == 0 else ():
        assert by_name[f"{who}: memory of the processes it sees"].result == "refused"
        assert by_name[f"{who}: attaches to the process by its number on the host"].result == "refused"
    if best == levels.Level.SEALED:
        memory = by_name["memory maps of the VM's processes and the daemon"]
        assert (memory.result, memory.control_result) == ("refused", "got")
        ebpf = by_name["eBPF at each perf sample, reads memory"]
        assert ebpf.result == "got" or ebpf.control_result == "not tried"


@pytest.mark.parametrize("level", ["separated", "faithful"])
def test_at_the_levels_below(runtime: Path, level: str) -> None:
    best = levels.best(levels.find_facts())
    if level not in ORDER[ORDER.index(best) + 1 :]:
        pytest.skip(f"level {level} is not below this machine's best")
    by_name = found(level, "descriptors", "inject")
    assert next(one for name, one in by_name.items() if "injected" in name).result in ("got", "refused")


@pytest.mark.parametrize("level", [str(level) for level in ORDER])
def test_code_made_at_run_time(runtime: Path, level: str) -> None:
    """Secret until it is run, where memory is secret; then read, and not written but in quick turns."""
    facts = levels.find_facts()
    if level not in ORDER[ORDER.index(levels.best(facts)) :]:
        pytest.skip(f"level {level} is more than this machine gives")
    by_name = found(level, "late")
    assert list(by_name) == list(_attack_late.TRIED)
    after = by_name["code made inside and run: changed"]
    assert after.result in ("refused", "met"), after
    if level == "sealed":
        assert [one.result for one in by_name.values()] == ["refused", "refused", "got", "refused", "got"]


def test_the_control_of_evicted_pages_believes_all(strongroom_home: Path) -> None:
    _, controls = _attack_evicted.attempts(lambda: _attack_targets.Ordinary("spilling.py"))
    assert [one["result"] for one in controls] == ["got"] * len(_attack_evicted.TRIED), controls


def test_the_host_program_changes_what_was_evicted(machine: Path) -> None:
    outcomes = found("faithful", "evictor")
    assert len(outcomes) == len(_attack_evicted.WITHIN)
    for one in outcomes.values():
        assert (one.result, one.control_result) == ("refused", "got"), one
        assert "vDSO exception 14" in one.text
        assert "the enclave is disabled: EENTER faulted, vector 14" in one.text


def test_an_evictor_that_changes_nothing_is_not_refused(machine: Path, tmp_path: Path) -> None:
    with _attack_evicted._machine() as vm:
        (one,) = _attack_outcomes.reported(_intruder.evictor(vm, tmp_path, "none"))
    assert (one["result"], one["text"]) == ("not tried", "the program has what it had")


def test_from_within_a_host_program(machine: Path) -> None:
    by_name = found("faithful", "frame", "tcs")
    assert by_name["the signal frame at an asynchronous exit"].result == "met"
    assert by_name["entries out of order"].result == "refused"
    assert by_name["the saved state is changed before the resume"].result == "refused"


def test_hostile_images(runtime: Path) -> None:
    best = str(levels.best(levels.find_facts()))
    assert {one.result for one in found(best, "image").values()} == {"refused"}


def test_a_loader_that_lies(runtime: Path) -> None:
    outcomes = found("faithful", "loader")
    assert len(outcomes) == 10
    endless = outcomes.pop("interrupted, or nothing yet, for ever")
    assert endless.result == "got", "service is the host's to deny"
    assert "read-interrupted: no end" in endless.text
    assert "again" not in endless.text
    assert {one.result for one in outcomes.values()} == {"refused"}, outcomes


LIES = {
    "thread-denied": (0, "BELIEVED []"),  # it is started all the same: the thread is not taken for free
    "descriptor-again": (0, "sockets: OSError [Errno 5]"),
    "read-restart": (0, "reads: OSError [Errno 5]"),
    "block-inside": (125, "the enclave refused an entry"),
    "strings-inside": (125, "the host's arguments are not in its memory"),
    "signals-all": (129, ""),
}


def test_how_a_lie_ends(runtime: Path, tmp_path: Path) -> None:
    liar = _compiled.liar()
    copy = Path(shutil.copytree(project("attacks/iago"), tmp_path / "iago"))
    words = [sys.executable, "-m", "strongroom", "exec", "--", str(shutil.copy2(liar, copy / "liar"))]
    for lie, (status, word) in LIES.items():
        done = subprocess.run([*words, lie, str(copy / "build")], capture_output=True, text=True, timeout=60,
                              check=False, cwd=copy)  # fmt: skip
        assert done.returncode == status, (lie, done)
        assert word in done.stdout + done.stderr, lie
        assert "BELIEVED" not in done.stdout or "BELIEVED []" in done.stdout, lie


def test_the_table_has_all_levels_and_its_page(runtime: Path, tmp_path: Path) -> None:
    page = tmp_path / "attacks.md"
    words = ["attack", "--only", "descriptors", "--only", "file", "--table", "--write", str(page), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", *words],
        capture_output=True, text=True, timeout=300, env=os.environ, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    possible = [str(level) for level in ORDER[ORDER.index(levels.best(levels.find_facts())) :]]
    assert len(said["attempts"]) == 3
    for row in said["attempts"]:
        assert row["plain"]["result"] in ("got", "not tried")
        assert {column for column in _attack_table.COLUMNS if column in row} == {"plain", *possible}
    text = page.read_text()
    assert "| file | a trusted file changed by a byte | got | " in text
    assert text.count("  - sealed: ") == (3 if "sealed" in possible else 0)


def test_a_row_is_one_attempt_and_keeps_what_was_first() -> None:
    one = _attack_outcomes.Outcome("memory", "a", "refused", "EIO", "not tried", "", "sealed")
    two = _attack_outcomes.Outcome("memory", "a", "got", "all of it", "got", "it", "separated")
    within = _attack_outcomes.Outcome("tcs", "b", "refused", "#GP", "got", "x", "faithful (exec)")
    first, second = _attack_table.rows([one, two, within])
    assert (first["plain"]["result"], first["sealed"]["result"], first["separated"]["result"]) == (
        "got", "refused", "got",
    )  # fmt: skip
    assert "as faithful" in _attack_table.page([within])
    assert second["exec"]
    assert not _attack_outcomes.as_promised(
        [two.__class__("tcs", "b", "got", "x", "got", "x", "faithful (exec)")]
    )
