"""The frame of the command line: discovery of verbs, one-line errors, exit statuses."""

from __future__ import annotations

import types
from collections.abc import Iterator

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
