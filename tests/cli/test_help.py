"""Help and completion: each verb has an example, and a shell gets the verbs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from strongroom.cli.main import make_app


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


@pytest.mark.parametrize(
    ("words", "position", "found"), [("strongroom do", 1, "doctor"), ("strongroom vm cr", 2, "create")]
)
def test_a_shell_completes(words: str, position: int, found: str) -> None:
    asked = {"_STRONGROOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    done = subprocess.run(
        [sys.executable, "-c", "from strongroom.cli.main import entry; entry()"],
        capture_output=True, text=True, timeout=60, env={**os.environ, **asked},
    )  # fmt: skip
    assert done.stdout.split() == [found], done.stderr
