"""Loaders that wait: taken by the next run, out of the way of whoever changes the VM, gone with the daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from strongroom.vm.runs import RunRequest, Warmth
from support.vm import Command, command_line, descendants, wait_until


def status(command: Command) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("daemon", "status", "--json").stdout)
    return found


def waiting(daemon: int) -> list[int]:
    """Process ids of the loaders that wait under this daemon."""
    found = [pid for pid in descendants(daemon) if b"--wait-fd" in command_line(pid)]
    return [pid for pid in found if command_line(pid)[0].endswith(b"/strongroom-loader")]


@pytest.fixture
def warm(command: Command, image: Path) -> int:
    """A VM `default` in which a loader waits; the daemon's process id."""
    if json.loads(command("doctor", "--json").stdout)["level"] == "faithful":
        pytest.skip("no namespaces here: loaders are started for each run")
    for _ in range(2):
        assert command("run", str(image), "--", "exit", "0").returncode == 0
    daemon: int = status(command)["pid"]
    wait_until(lambda: len(waiting(daemon)) == 1)
    wait_until(lambda: status(command)["waiting_loaders"] == 1)
    return daemon


def test_the_next_run_takes_it(command: Command, image: Path, warm: int) -> None:
    (loader,) = waiting(warm)
    with command.popen("run", str(image), "--", "sleep", "1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asleep\n"
        assert os.path.exists(f"/proc/{loader}")
        wait_until(lambda: len(waiting(warm)) == 2)  # another one waits while the first works
        assert status(command)["runs"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert not os.path.exists(f"/proc/{loader}")


def test_status_output_and_descriptors_are_as_without(command: Command, image: Path, warm: int) -> None:
    asked = ("id", "", "core", "", "descriptors", "", "exit", "7")
    first = command("run", str(image), "--", *asked)
    command("daemon", "stop")
    second = command("run", str(image), "--", *asked)
    assert (first.returncode, second.returncode) == (7, 7)
    theirs, ours = first.stdout.splitlines(), second.stdout.splitlines()
    assert theirs[:2] == ours[:2]
    # 0 1 2, the image's three, and the line to the quoting enclave: one number each, none more.
    assert len(theirs[2].split()) == len(ours[2].split())


@pytest.mark.parametrize("change", [("resize", "default", "Standard_DC4s_v2"), ("delete", "default")])
def test_it_gives_way(command: Command, warm: int, change: tuple[str, ...]) -> None:
    assert command("vm", *change).returncode == 0
    assert waiting(warm) == []
    assert status(command)["waiting_loaders"] == 0


def test_a_stopped_vm_keeps_none(command: Command, warm: int) -> None:
    assert command("vm", "stop", "default").returncode == 0
    time.sleep(1)
    assert waiting(warm) == []


def test_a_killed_one_is_replaced(command: Command, image: Path, warm: int) -> None:
    (loader,) = waiting(warm)
    os.kill(loader, signal.SIGKILL)
    assert command("run", str(image), "--", "exit", "3").returncode == 3
    wait_until(lambda: waiting(warm) not in ([], [loader]))


def test_the_daemons_end_is_theirs(command: Command, warm: int) -> None:
    (loader,) = waiting(warm)
    os.kill(warm, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{loader}"))


def test_one_run_is_no_reason(command: Command, image: Path) -> None:
    assert command("run", str(image), "--", "exit", "0").returncode == 0
    time.sleep(1)
    assert status(command)["waiting_loaders"] == 0


def test_none_waits_where_none_is_wanted(
    command: Command, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = command.environment() | {"STRONGROOM_WAITING": "0"}
    monkeypatch.setattr(type(command), "environment", lambda _self: environment)
    for _ in range(2):
        assert command("run", str(image), "--", "exit", "0").returncode == 0
    time.sleep(1)
    assert waiting(status(command)["pid"]) == []


def test_what_waits_reaches_to_the_end_of_the_heap() -> None:
    """The benchmark's image of `start`: 16,453 pages of it are data, and 52 of those are measured."""
    request = RunRequest(
        vm="default", level=None, arguments=[], environment=[], epc_pages=21_070, pinned_pages=9, sgx2=False,
        measured_pages=4_668, image=[], channel=None, binds=[], cwd="/", timing=False, guard=False,
    )  # fmt: skip
    warmth = Warmth.of(request)
    assert 16_453 <= warmth.data < 16_453 + 366  # 1,536 are touched at the end, of which a start uses 1,170
    assert warmth.measured == 4_668
