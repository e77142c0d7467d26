"""--guard: a tracer of ours stays attached, so nobody else attaches; the program notices nothing but the price."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_machine import Machine

GUARD = ("--guard",)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17


@pytest.mark.parametrize(
    "scenario", ["call", "storm", "storm-altstack", "nested", "threads", "signals", "fork", "bases"]
)
def test_scenarios_are_as_without(machine: Machine, scenario: str) -> None:
    assert machine.host(scenario, options=GUARD) == machine.host(scenario)


def test_status_and_signals_come_through(machine: Machine) -> None:
    assert machine.program("/bin/sh", "-c", "exit 7", options=GUARD) == (7, "", "")
    assert machine.program("/bin/sh", "-c", "kill -TERM $$", options=GUARD)[0] == -15
    assert machine.program("/bin/sh", "-c", "trap 'echo caught; exit 3' TERM; kill -TERM $$", options=GUARD) == (
        3, "caught\n", "",
    )  # fmt: skip


def status_of(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    raise AssertionError(field)


def until(what: str, pid: int, field: str, good: str) -> None:
    for _ in range(200):
        if status_of(pid, field) in good:
            return
        time.sleep(0.02)
    raise AssertionError(f"{what}: {field} is {status_of(pid, field)}")


@pytest.fixture
def guarded(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    rpc, _ = machine.server.connect()
    command = machine.server.command(rpc.fileno(), ["/bin/sleep", "60"], GUARD)
    with rpc, subprocess.Popen(command, pass_fds=(rpc.fileno(), machine.server.epc.descriptor)) as process:
        for _ in range(200):
            if (
                Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n"
                and status_of(process.pid, "State") == "S"
            ):
                break
            time.sleep(0.02)
        yield process
        process.kill()


def test_nobody_else_attaches(guarded: subprocess.Popen[bytes]) -> None:
    assert int(status_of(guarded.pid, "TracerPid")) > 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    assert libc.ptrace(PTRACE_SEIZE, guarded.pid, None, None) == -1
    assert ctypes.get_errno() == errno.EPERM


def test_without_the_guard_it_ends(guarded: subprocess.Popen[bytes]) -> None:
    os.kill(int(status_of(guarded.pid, "TracerPid")), signal.SIGKILL)
    assert guarded.wait(10) == -signal.SIGKILL


def test_it_can_be_stopped_and_continued(guarded: subprocess.Popen[bytes]) -> None:
    guarded.send_signal(signal.SIGSTOP)
    until("stopped", guarded.pid, "State", "Tt")
    time.sleep(0.1)
    guarded.send_signal(signal.SIGCONT)
    until("continued", guarded.pid, "State", "S")
    guarded.terminate()
    assert guarded.wait(10) == -signal.SIGTERM
