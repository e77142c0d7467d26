"""The hospital's example, start to end, by ``strongroom demo``: at each level that this machine gives."""

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
from strongroom.machine import level as levels
from support.interpreter_image import need_runtime


@pytest.fixture
def runtime(strongroom_home: Path) -> Iterator[Path]:
    need_runtime()
    yield strongroom_home
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


@pytest.mark.parametrize("level", ["sealed", "separated", "faithful"])
def test_records_are_scored_inside(runtime: Path, level: str) -> None:
    facts = levels.find_facts()
    order = ["sealed", "separated", "faithful"]
    if order.index(level) < order.index(str(levels.best(facts))):
        pytest.skip(f"level {level} is not to be had on this machine as this user")
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", "demo", "--no-attacks", "--level", level, "--json"],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["level"] == level
    assert said["report"]["patients"] == 569
    assert len(said["steps"]) == 7
    assert "wrong-enclave" in said["steps"][-1]["text"]
