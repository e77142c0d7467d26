"""A process's place in its VM's EPC is another's only when that process is dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.machine import client, protocol
from support.vm import NATIVE


@pytest.fixture
def daemon(strongroom_home: Path) -> Iterator[None]:
    if not (NATIVE / "strongroom-inject").exists():
        pytest.skip("native/ is not built: run `make`")
    with client.connect():
        pass
    yield
    client.ask("stop", start=False)


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
