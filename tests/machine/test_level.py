"""The three levels: which one the facts give, what is forced, what this machine says of itself under less."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from strongroom.errors import UsageError
from strongroom.machine import level
from strongroom.machine.level import Facts, Level, LevelUnavailable
from support.less import EIGHT_MIB, eight_mib, no_protection_keys, no_secret_memory

SEALED = Facts(privileged=True, user_namespaces=True, secret_memory=True, memlock_bytes=-1)


def all_facts() -> list[Facts]:
    flags = itertools.product((True, False), (True, False), (True, False), (-1, EIGHT_MIB))
    return [Facts(*one) for one in flags]


@pytest.mark.parametrize("facts", all_facts(), ids=str)
def test_the_best_level_and_what_is_missing(facts: Facts) -> None:
    found = level.best(facts)
    if found is Level.SEALED:
        assert facts.privileged and facts.secret_memory and facts.memlock_bytes == -1
        assert level.missing(facts) == []
    else:
        assert level.missing(facts), "less than sealed has its reason"
        assert all(how for _, how in level.missing(facts)), "and each reason what gets it"
    assert (found is Level.FAITHFUL) == (not facts.privileged and not facts.user_namespaces)
    order = [Level.FAITHFUL, Level.SEPARATED, Level.SEALED]
    for wanted in order:
        if order.index(wanted) <= order.index(found):
            assert level.choose(facts, wanted.value) is wanted
        else:
            with pytest.raises(LevelUnavailable, match=level.missing(facts)[0][0].split(" (")[0]):
                level.choose(facts, wanted.value)


def test_a_word_that_is_no_level() -> None:
    with pytest.raises(UsageError):
        level.choose(SEALED, "armoured")
    assert level.choose(SEALED, "SEPARATED") is Level.SEPARATED
    assert level.choose(SEALED, None) is Level.SEALED


def doctor(before: Callable[[], None], *prefix: str) -> dict[str, object]:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "strongroom", "doctor", "--json"],
        capture_output=True, text=True, preexec_fn=before, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def check_of(said: dict[str, object], name: str) -> dict[str, object]:
    checks = said["checks"]
    assert isinstance(checks, list)
    return next(check for check in checks if check["name"] == name)


def test_doctor_without_secret_memory() -> None:
    said = doctor(no_secret_memory)
    secret = check_of(said, "secret memory")
    assert secret["ok"] is False
    assert "secretmem.enable=1" in str(secret["remedy"])
    assert said["best_level"] != "sealed"
    assert any("secret memory" in one["what"] for one in said["missing"])  # type: ignore[union-attr]


@pytest.mark.parametrize("capability", [True, False], ids=["with CAP_IPC_LOCK", "without"])
def test_doctor_says_the_share_that_is_secret(capability: bool) -> None:
    """Root may lock without limit by its capability; whoever lacks it has 4 MiB of 8 for an enclave's data."""
    if os.geteuid() == 0:
        prefix = [] if capability else ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    elif capability:
        pytest.skip("an ordinary user has no such capability")
    else:
        prefix = []
    said = doctor(eight_mib, *prefix)
    locked = check_of(said, "locked memory")
    if capability:
        assert locked["ok"] is True
        return
    assert locked["ok"] is False
    assert locked["detail"] == "8 MiB: 4.0 MiB of an enclave's data, 7 % of a Standard_DC2s_v2's EPC"
    assert said["best_level"] != "sealed"


def test_doctor_says_what_is_without_protection_keys() -> None:
    assert check_of(doctor(no_protection_keys), "protection keys")["ok"] is False
    keys = check_of(doctor(lambda: None), "protection keys")
    with open("/proc/cpuinfo") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    assert keys["ok"] == ("pku" in flags and "ospke" in flags)
    assert "while one is inside" in str(keys["detail"]) and "stay open" in str(keys["cost"])
