"""Popular packages: what the programs say of themselves, how they are judged, and a sample of them inside."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.image import manifest
from support.guests import Guests
from support.interpreter_image import need_runtime

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from conformance import packages  # noqa: E402

ALL = sorted(packages.PROGRAMS.glob("*.py"))
SAMPLE = (
    "cryptography",
    "multiprocessing",
    "numpy",
)  # of what `make` installs (but for joblib)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_program_says_what_it_needs(path: Path, tmp_path: Path) -> None:
    program = packages.read(path)
    assert program.says.endswith(".") and (
        program.dependencies or program.name in ("asyncio", "multiprocessing")
    )
    (tmp_path / "main.py").touch()
    (tmp_path / "enclave.toml").write_text(program.manifest())
    found = manifest.read(tmp_path / "enclave.toml")
    assert found.main == "main.py" and found.packages == program.dependencies
    for key in set(program.settings) - {"files", "env"}:
        assert f"{key} = " in "\n".join(program.lines())


def judged(inside: packages.Ran, **more: str) -> packages.Verdict:
    program = replace(packages.read(ALL[0]), differs=more.get("differs", ""))
    return packages.Verdict(program, {}, packages.Ran("x\n", "", 0, 1.0), inside, 1)


def test_what_is_alike() -> None:
    assert judged(packages.Ran("x\n", "strongroom: sealed\n", 0, 9.0)).as_expected
    for other in (
        packages.Ran("y\n", "", 0, 1.0), packages.Ran("x\n", "", 1, 1.0), packages.Ran("x\n", "", 0, 1.0, ["200"]),
    ):  # fmt: skip
        assert not judged(other).alike and not judged(other).as_expected
        assert judged(other, differs="why").as_expected
    assert not judged(packages.Ran("x\n", "", 0, 1.0), differs="why").as_expected  # no longer: to be said
    failed = replace(judged(packages.Ran("", "", 1, 1.0)), outside=packages.Ran("", "", 1, 1.0))
    assert not failed.alike and not failed.as_expected  # nothing was shown


def test_the_page_is_of_these_programs() -> None:
    """Every program has its row, what each needs is what its head says, and the sum is that of the rows."""
    text = (ROOT / "docs" / "packages.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 5][2:]
    programs = [packages.read(path) for path in ALL]
    assert len(rows) == len(programs)
    for row, program in zip(rows, programs, strict=True):
        assert all(f"{name} " in row for name in program.dependencies), program.name
        assert all(f"`{line}`" in row for line in program.lines()), program.name
        assert ("| differs |" in row) == bool(program.differs), program.name
    assert f"**{sum('| alike |' in row for row in rows)} of {len(rows)} are alike**" in text


def test_sample(tmp_path: Path) -> None:
    """Some of them inside and outside, by the command that does all."""
    need_runtime()
    with tempfile.TemporaryDirectory(prefix="sr-pack-") as home:
        guests = Guests(Path(home) / "h")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "conformance.packages", "--work", str(tmp_path), "--only", *SAMPLE],
                cwd=ROOT, env=guests.environment(), capture_output=True, text=True, timeout=300,
            )  # fmt: skip
        finally:
            guests.stop()
    assert done.returncode == 0, done.stderr
    assert "NOT AS EXPECTED" not in done.stderr
    for name in SAMPLE:
        outcome = "differs" if name == "multiprocessing" else "alike ("
        assert f"{name}: {outcome}" in done.stderr, done.stderr
