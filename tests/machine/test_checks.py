"""What doctor says: each line that fails tells what that costs and the exact line that gets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from strongroom.machine import checks, level
from strongroom.machine.level import Facts, Level

POOR = Facts(privileged=False, user_namespaces=False, secret_memory=False, memlock_bytes=8 << 20)
RICH = Facts(privileged=True, user_namespaces=True, secret_memory=True, memlock_bytes=-1)


@pytest.mark.parametrize("facts", [POOR, RICH])
def test_what_fails_names_its_cost_and_its_line(facts: Facts) -> None:
    found = checks.all_checks(facts)
    assert len({(one.group, one.name) for one in found}) == len(found)
    for one in found:
        assert one.detail, one.name
        # Also of those that hold here: elsewhere they do not.
        assert one.group == "parts" or (one.cost and one.remedy), one.name
        assert one.ok or (one.cost and one.remedy), one.name


def test_the_poorest_machine() -> None:
    failed = {one.name: one for one in checks.all_checks(POOR) if not one.ok}
    assert {"secret memory", "locked memory", "namespaces", "root", "debugger watch"} <= set(failed)
    assert "secretmem.enable=1" in failed["secret memory"].remedy
    assert "prlimit" in failed["locked memory"].remedy
    assert level.best(POOR) is Level.FAITHFUL
    assert {what.split()[0] for what, _ in level.missing(POOR)} == {
        "root's",
        "secret",
        "locked",
        "namespaces",
    }


def test_the_command_prints_what_the_checks_found() -> None:
    command = [sys.executable, "-m", "strongroom", "doctor"]
    environment = {**os.environ, "NO_COLOR": "1"}
    tree = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    facts = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False).stdout
    )
    assert tree.returncode == (0 if facts["able"] else 1), tree.stderr
    assert tree.stdout.startswith(f"level {facts['level']}: keeps out {facts['keeps_out']}\n")
    for one in facts["checks"]:
        line = f"{'✔' if one['ok'] else '✘'} {one['name']}: {one['detail']}"
        assert line in tree.stdout
        assert one["ok"] or f"to get it: {one['remedy']}" in tree.stdout
