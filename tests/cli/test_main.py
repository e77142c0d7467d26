"""The frame of the command line: discovery of verbs, one-line errors, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import strongroom
import strongroom.cli.main as frame
from strongroom.errors import StrongroomError, UsageError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A verb `probe` that fails as it is told."""
    module = types.ModuleType("strongroom.cli.probe")
    faults = {
        "ours": StrongroomError("it broke\nbadly\x1b[31m", "mend it"),
        "usage": UsageError("what?"),
        "full": OSError(28, "No space left on device", "/x"),
        "gone": OSError(2, "No such file or directory", "/y"),
        "ctrl-c": KeyboardInterrupt(),
    }

    def register(app: typer.Typer) -> None:
        @app.command()
        def probe(how: str) -> int:
            if how in faults:
                raise faults[how]
            return int(how)

    module.register = register  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "strongroom.cli.probe", module)
    monkeypatch.setattr(frame, "verbs", lambda: ["probe"])
    yield module


@pytest.mark.parametrize(
    ("how", "status", "text"),
    [
        ("0", 0, ""),
        ("125", 125, ""),
        ("ours", 1, "strongroom: it broke badly [31m: mend it\n"),
        ("usage", 2, "strongroom: what?\n"),
        ("full", 1, "strongroom: the disk is full (/x): free some space and try again\n"),
        ("gone", 1, "strongroom: No such file or directory (/y)\n"),
        ("ctrl-c", 130, ""),
    ],
)
def test_status_and_line(
    verb: types.ModuleType, capsys: pytest.CaptureFixture[str], how: str, status: int, text: str
) -> None:
    assert frame.main(["probe", how]) == status
    assert capsys.readouterr().err == text


def test_usage_is_2_and_one_line(verb: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["probe"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--help" in error
    assert frame.main(["no-such-verb"]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--version"]) == 0
    assert capsys.readouterr().out == f"strongroom {strongroom.__version__}\n"


def test_every_verb_registers_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in frame.verbs():
        assert frame.main([name, "--help"]) == 0, name
        assert "Usage" in capsys.readouterr().out


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *words],
        capture_output=True, text=True, encoding="latin-1", timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_terminal_with_few_signs() -> None:
    done = run("doctor", PYTHONIOENCODING="latin-1")
    assert (
        "Traceback" not in done.stderr
        and "? " in done.stdout
        and done.stdout.endswith("does not protect like SGX.\n")
    )


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    """Half of the start is imports: there, as later, it is 130 and no traceback."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    done = run("doctor", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
