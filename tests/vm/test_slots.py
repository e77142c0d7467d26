"""What the daemon holds for a program under `exec`: its place in the EPC and its VM's lock, until it is dead."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.machine import client, protocol
from support.vm import NATIVE, Command


@pytest.fixture
def daemon(strongroom_home: Path) -> Iterator[None]:
    """This process's user's."""
    if not (NATIVE / "strongroom-inject").exists():
        pytest.skip("native/ is not built: run `make`")
    with client.connect():
        pass
    yield
    with contextlib.suppress(client.NoDaemon):
        client.stop_daemon()


def line() -> tuple[client.Connection, int, list[int]]:
    """What a command under `exec` gets: its connection, its slot, the line's descriptors (rpc is the first)."""
    connection = client.connect()
    connection.request("exec", {"vm": "default"})
    ready, descriptors = connection.reply(60)
    return connection, protocol.number(ready, "slot", 0, 1000), descriptors


def test_a_command_ends_before_its_program(daemon: None) -> None:
    other = line()
    first, slot, descriptors = line()
    program = os.dup(descriptors[0])  # the program's end of the line
    protocol.close_all(descriptors)
    first.close()
    with socket.socket(fileno=os.dup(program)) as asking:
        asking.settimeout(60)
        assert asking.recv(1) == b"", "its package answers no more"
    for _ in range(3):
        connection, meanwhile, more = line()
        assert meanwhile not in (slot, other[1])
        protocol.close_all(more)
        connection.close()
    os.close(program)
    taken = []
    for _ in range(200):  # each may come before the daemon noticed; none is kept
        connection, meanwhile, more = line()
        taken.append(meanwhile)
        protocol.close_all(more)
        connection.close()
        if meanwhile == slot:
            break
    assert slot in taken
    protocol.close_all(other[2])
    other[0].close()


def test_its_vm_is_in_use_though_the_daemon_was_killed(daemon: None, strongroom_home: Path) -> None:
    command = Command(strongroom_home, NATIVE, os.geteuid())
    connection, _, descriptors = line()
    os.kill(protocol.number(client.ask("status"), "pid", 2, 2**31), signal.SIGKILL)
    connection.close()
    deadline = time.monotonic() + 60
    try:
        done = command("vm", "resize", "default", "Standard_DC2s_v2")
        assert (done.returncode, "is in use" in done.stderr) == (1, True), done.stderr
    finally:
        protocol.close_all(descriptors)
    while (done := command("vm", "resize", "default", "Standard_DC2s_v2")).returncode:  # the control
        assert time.monotonic() < deadline, done.stderr


def test_a_program_left_behind_does_not_hold_its_vm(daemon: None, strongroom_home: Path) -> None:
    """Without namespaces a child may outlive its command."""
    connection, _, descriptors = line()
    program = os.dup(descriptors[0])
    protocol.close_all(descriptors)
    connection.close()
    try:
        done = Command(strongroom_home, NATIVE, os.geteuid())("vm", "resize", "default", "Standard_DC2s_v2")
        assert done.returncode == 0, done.stderr
    finally:
        os.close(program)
