"""The real runtime under kill -9: of the host program, of the loader under it, of the daemon; it pages meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.house import House, kill
from support.interpreter_image import need_runtime
from support.vm import NATIVE, Command

ROUNDS = 3 + int(os.environ.get("STRONGROOM_FAULTS", "0")) // 5
SEED = int(os.environ.get("STRONGROOM_SEED", "1"))
INSIDE = """\
import hashlib
from strongroom.inside import export

blocks = [bytes([number]) * (1 << 20) for number in range(30)]
wanted = [hashlib.sha256(block).digest() for block in blocks]

@export
def turn() -> bool:
    return [hashlib.sha256(block).digest() for block in blocks] == wanted
"""
HOST = """\
import sys
from strongroom import Enclave
from strongroom.errors import StrongroomError

try:
    with Enclave(sys.argv[1], vm="small") as box:
        print("begun", flush=True)
        for _ in range(int(sys.argv[2])):
            assert box.turn() is True
    print("good", flush=True)
except StrongroomError as error:
    print(f"lost: {error}", flush=True)
"""


@pytest.fixture
def house(strongroom_home: Path) -> Iterator[House]:
    need_runtime()
    folder = strongroom_home.parent
    for name in ("out", "tmp"):
        (folder / name).mkdir()
    made = House(Command(strongroom_home, NATIVE, os.geteuid()), folder)
    yield made
    made.command("daemon", "stop")


def test_the_host_program_and_others_killed(house: House, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    project = tmp_path / "p"
    project.mkdir()
    (project / "main.py").write_text(INSIDE)
    (project / "enclave.toml").write_text('[enclave]\nmain = "main.py"\nmemory = "64M"\n')
    host = tmp_path / "host.py"
    host.write_text(HOST)
    assert house.command("build", str(project), timeout=200).returncode == 0
    assert house.command("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0

    def start(turns: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(host), str(project), str(turns)], env=house.command.environment(), cwd="/",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    victims = ["host", "program", "daemon", "spawner", "between"]
    for number in range(ROUNDS):
        victim = victims[number] if number < len(victims) else chance.choice(victims)
        with start(1000) as process:
            if chance.random() < 0.7:
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
            time.sleep(chance.random())
            found = [process.pid] if victim == "host" else [
                one.pid for one in house.processes() if one.role == victim
            ]  # fmt: skip
            for pid in found:  # of loaders, the one that waits to be used as well
                kill(pid)
            if not found:
                process.kill()
            out, err = process.communicate(timeout=60)
            if victim == "host" or not found:
                assert process.returncode == -signal.SIGKILL
            else:
                assert process.returncode == 0, err
                assert out.splitlines()[-1].startswith("lost: "), out
            assert "Traceback" not in err, err
        house.settle()
        house.assert_true()
    with start(2) as process:
        out, err = process.communicate(timeout=60)
        assert out.splitlines()[-1:] == ["good"], (out, err)
    house.settle()
    house.assert_clean()
