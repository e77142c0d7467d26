"""``strongroom attack`` for real: enclaves in a VM beside ordinary processes, at each level that this machine gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.cli import _attack, _attack_outcomes, _intruder, _projects
from strongroom.image import sgxs
from strongroom.machine import level as levels
from support.vm import command_line, descendants, wait_until


def test_the_host_part_cannot_change_an_enclave_and_a_try_disables_it(machine: Path) -> None:
    load, store = _attack.intruder_attack("data", "default")
    assert (load.result, load.control_result) == ("refused", "got"), load
    assert (store.result, store.control_result) == ("refused", "got"), store
    assert "disabled" in store.text
    # EENTER of a page that is gone: #PF with the SGX bit (SDM vol. 3A, "Page-Fault Exceptions").
    assert "EENTER faulted, vector 14, error code 0x8005" in store.text


def test_without_tamper_a_store_is_dropped(machine: Path, tmp_path: Path) -> None:
    words = [word for word in _intruder.command("default", tmp_path) if word != "--tamper=disable"]
    _, store = _attack_outcomes.reported(words)
    assert store["result"] == "refused", store
    assert "dropped" in store["text"]


def test_an_intruders_enclave_with_a_changed_page_is_refused(machine: Path, tmp_path: Path) -> None:
    words = _intruder.command("default", tmp_path)
    pages = bytearray((tmp_path / "pages").read_bytes())
    pages[2 * 4096 + 100] ^= 1
    (tmp_path / "pages").write_bytes(pages)
    (one,) = _attack_outcomes.reported(words)
    assert one["result"] == "not tried"
    assert "SGX_IOC_ENCLAVE_INIT" in one["text"]


def test_elrange_is_read_from_the_image(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    with (tmp_path / "build" / "enclave.sgxs").open("wb") as file:
        sgxs.Writer(file, 1 << 30)
    assert _projects.elrange_of(tmp_path) == 1 << 30


def possible() -> list[str]:
    facts = levels.find_facts()
    order = [levels.Level.SEALED, levels.Level.SEPARATED, levels.Level.FAITHFUL]
    return [str(level) for level in order[order.index(levels.best(facts)) :]]


@pytest.mark.parametrize("level", ["sealed", "separated", "faithful"])
def test_every_outcome_is_what_the_level_promises(runtime: Path, level: str) -> None:
    if level not in possible():
        pytest.skip(f"level {level} is not to be had on this machine as this user")
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", "attack", "--level", level, "--json"],
        capture_output=True, text=True, timeout=400, env=os.environ, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert {one["attack"] for one in said["attempts"]} == set(_attack.ATTACKS)
    assert said["as_promised"], json.dumps(said, indent=1)
    assert done.returncode == 0
    assert all(one["control_result"] == "got" or one["result"] == "not tried" for one in said["attempts"])
    assert all(one["level"] in (level, "faithful (exec)") for one in said["attempts"])
    refused = {one["attack"] for one in said["attempts"] if one["result"] == "refused"}
    assert {"data", "file", "quote"} <= refused
    if level == "sealed":
        kept = [
            one
            for one in said["attempts"]
            if one["attack"] in ("debugger", "memory") and "code pages" not in one["attempt"]
        ]
        assert all(one["result"] in ("refused", "met") or "not installed" in one["text"] for one in kept)


def test_ctrl_c_is_no_traceback_of_the_controls(runtime: Path) -> None:
    """A terminal's Ctrl-C goes to all of its foreground processes, as here."""
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom", "attack", "--only", "debugger"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip

        def started() -> bool:
            return any(b"ordinary.py" in b" ".join(command_line(pid)) for pid in descendants(process.pid))

        wait_until(started)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("Traceback")) == (130, 0), said
