"""Help and completion: each verb has an example, and a shell gets the verbs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from strongroom.cli.main import make_app
from strongroom.vm.lifecycle import Machines
from strongroom.vm.manufacture import Fuses
from strongroom.vm.records import Records


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command and group, with the words that call it."""
    if name:
        yield name.strip(), command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}")


ALL = dict(commands(typer.main.get_command(make_app())))


@pytest.mark.parametrize("name", ALL)
def test_help_has_an_example(name: str) -> None:
    epilog = ALL[name].epilog or ""
    assert f"strongroom {name}" in epilog or name.split()[0] in ("vm", "daemon"), name
    assert epilog.startswith(("Example: ", "Examples: ")), name
    assert ALL[name].help, name


def completed(words: str, home: Path) -> list[str]:
    """What bash is given for the last of ``words``."""
    last = str(len(words.split(" ")) - 1)
    asked = {"_STRONGROOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": last}
    done = subprocess.run(
        [sys.executable, "-c", "from strongroom.cli.main import entry; entry()"],
        capture_output=True, text=True, timeout=60, env={**os.environ, **asked, "STRONGROOM_HOME": str(home)},
    )  # fmt: skip
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("strongroom do", ["doctor"]),
        ("strongroom vm cr", ["create"]),
        ("strongroom run --level s", ["sealed", "separated"]),
        ("strongroom vm create x --size Standard_DC1s", ["Standard_DC1s_v2", "Standard_DC1s_v3"]),
        ("strongroom run --vm ", []),
    ],
)
def test_a_shell_completes(words: str, found: list[str], tmp_path: Path) -> None:
    assert completed(words, tmp_path / "none") == found
    assert not (tmp_path / "none").exists()


def test_a_shell_completes_vms(tmp_path: Path) -> None:
    for name in ("clinic", "lab"):
        Machines(Records(tmp_path), Fuses(tmp_path), lambda vm, action: None).create(name, "Standard_DC1s_v2")
    assert completed("strongroom run --vm ", tmp_path) == ["clinic", "lab"]
    assert completed("strongroom vm delete cl", tmp_path) == ["clinic"]
