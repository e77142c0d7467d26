"""``strongroom quote``: what it refuses before it starts anything."""

from __future__ import annotations

import pytest

from strongroom.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--data", "xyz", "."], 2, "not hexadecimal"),
        ([], 2, "DIR"),
    ],
)
def test_refused(capsys, arguments, status, words):
    assert main(["quote", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words.lower() in captured.err.lower()
    assert captured.err.count("\n") == 1


def test_a_project_that_is_not_built(capsys, tmp_path):
    assert main(["quote", "--json", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "strongroom build" in captured.err
