"""Each benchmark runs, and the table is whole. Figures are not judged here: this is no timed test."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.figure import Figure, Side, interleave, slope  # noqa: E402
from benchmarks.machine import ecall_figure  # noqa: E402
from benchmarks.report import complete, markdown  # noqa: E402
from benchmarks.rows import ROWS  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks.md"


def figure(row: str, ours: float, base: float, **changes: object) -> Figure:
    facts: dict[str, object] = {"unit": "ms", "kind": "ratio", "most": 2.0}
    return Figure(row, ours=Side("a", (ours,)), base=Side("b", (base,)), **(facts | changes))  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for the benchmarks' C programs")
def test_every_benchmark_runs_and_the_table_is_whole(tmp_path: Path) -> None:
    """At sizes that say nothing: the real programs, in real VMs, from the command."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--tiny", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "STRONGROOM_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {one["row"]: one for one in found["figures"]}
    assert list(rows) == list(ROWS)
    for name, one in rows.items():
        assert one["not_measured"] or one["value"] is not None, name
        assert one["not_measured"] or one["limits"], f"{name} would not say what limits it"
    steps = {step["step"]: step["value"] for step in rows["start"]["profile"]}
    assert sum(steps.values()) == pytest.approx(rows["start"]["ours"]["median"], rel=0.5)
    assert all(value >= 0 for value in steps.values()), steps


def test_the_page_has_every_line_of_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for row, words in ROWS.items():
        line = next((line for line in text.splitlines() if line.startswith(f"| {words} |")), None)
        assert line is not None, f"{row}: run `make bench`"
        assert re.search(r"\| (met|missed|no goal here|not measured) \|$", line), line
        if "| missed |" in line:
            assert re.search(rf"^- \*\*{row}\*\*: .*Limited by: ", text, re.MULTILINE), (
                f"{row} names no limit"
            )


def test_results_by_kind_of_goal() -> None:
    assert figure("start", 3, 2).met is True
    assert figure("start", 5, 2).met is False
    assert figure("syscall", 300, 120, kind="difference", most=200).value == 180
    assert figure("ecall", 9, 1, kind="value", most=8).met is False
    nothing = Figure("paging", "ns", None, None, "value", 0, not_measured="no paging")
    assert (nothing.value, nothing.met) == (None, None)


def test_a_goal_for_bare_metal_is_not_judged_in_a_virtual_machine() -> None:
    here, bare = (ecall_figure((9_000.0,), (7_900.0,), 120.0, 2.6, virtual) for virtual in (True, False))
    assert (here.met, here.value, bare.met) == (None, 9_000, False)
    assert "estimate, not measured" in here.note
    assert here.extra["estimate_on_bare_metal"] == {"ns": 2_100, "trap_ns": 1_000}
    assert "estimate" not in bare.note
    assert sum(value for _, value in here.profile) == pytest.approx(9_000)
    rest = [figure(row, 1, 1) for row in ROWS if row != "ecall"]
    line = next(line for line in markdown([here, *rest], "sealed").splitlines() if line.startswith("| ECALL"))
    assert line.endswith("| ≤ 5,385 ns on bare metal | no goal here |")
    line = next(line for line in markdown([bare, *rest], "sealed").splitlines() if line.startswith("| ECALL"))
    assert line.endswith("| ≤ 5,385 ns | missed |")


def test_a_table_with_a_line_missing_or_twice_is_refused() -> None:
    whole = [figure(row, 1, 1) for row in ROWS]
    assert list(complete(whole)) == list(ROWS)
    assert markdown(whole, "faithful").count("| met |") == len(ROWS)
    for wrong in (whole[1:], [*whole, whole[0]], [*whole[1:], figure("another", 1, 1)]):
        with pytest.raises(ValueError, match="not whole"):
            complete(wrong)


def test_interleaving_takes_turns() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    samples = interleave(3, lambda: side("a"), lambda: side("b"))
    assert [len(one) for one in samples] == [3, 3]
    assert "".join(calls) == "baabbaabba"


def test_slope() -> None:
    cost, straight = slope([(0, 5), (1, 7), (2, 9)])
    assert (cost, straight) == (pytest.approx(2), pytest.approx(1))
