"""CPython's own tests: a sample of them inside, and the rules by which the whole is judged."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.guests import Guests
from support.interpreter_image import need_runtime

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from conformance import suite, table  # noqa: E402
from conformance.compare import Case, Run, compare  # noqa: E402

REFUSED = "strongroom: fork refused, asked for by x.so: no other program"


def lines(*items: dict[str, str] | str) -> str:
    return "\n".join(item if isinstance(item, str) else f"\x1e{json.dumps(item)}" for item in items)


def case(name: str, outcome: str = "ok", *between: str) -> list[dict[str, str] | str]:
    return [{"start": name}, *between, {"stop": name, "outcome": outcome, "why": ""}]


DONE: dict[str, str] = {"module": "done", "why": ""}


def test_what_a_refused_process_explains_and_no_more() -> None:
    outside = Run.read(lines(*case("a"), *case("b"), *case("c"), *case("d", "bad"), DONE))
    inside = Run.read(
        lines(*case("a"), *case("b", "bad", REFUSED), *case("c", "bad"), *case("d", "bad", REFUSED), DONE)
    )
    verdict = compare("m", outside, inside)
    assert verdict.aside == ["b"]  # c failed for another reason; d fails outside too
    assert list(verdict.differ) == ["c"]
    assert (verdict.alike, verdict.total, verdict.as_outside) == (2, 4, False)


def test_a_refused_set_up_takes_its_class_along() -> None:
    outside = Run.read(lines(*case("t.A.one"), *case("t.B.one"), DONE))
    error = {"stop": "setUpClass (t.A)", "outcome": "bad", "why": ""}
    inside = Run.read(lines(REFUSED, error, *case("t.B.one"), DONE))
    verdict = compare("m", outside, inside)
    assert verdict.aside == ["t.A.one", "setUpClass (t.A)"] and not verdict.differ
    without = compare("m", outside, Run.read(lines(error, *case("t.B.one"), DONE)))
    assert set(without.differ) == {"t.A.one", "setUpClass (t.A)"}


def test_what_a_test_prints_is_no_result() -> None:
    run = Run.read(
        lines(*case("a", "ok", '{"stop": "b"}', "\x1e", "\x1e{", "x\x1e" + json.dumps({"module": "done"})))
    )
    assert list(run.cases) == ["a"] and run.module == "stopped"


@pytest.mark.parametrize("ended", ["stopped", "bad"])
def test_a_module_that_did_not_end_is_not_as_outside(ended: str) -> None:
    outside = Run(module="done", cases={"a": Case("ok", "", False)})
    inside = Run(module=ended, why="status 134", cases={"a": Case("ok", "", False)}, open=["b"])
    verdict = compare("m", outside, inside)
    assert not verdict.as_outside and "in b" in verdict.note and "status 134" in verdict.note
    assert not compare("m", Run(module=ended), Run(module=ended)).as_outside  # nothing was shown


def test_results_are_kept_whole() -> None:
    run = Run.read(lines(*case("a", "bad", REFUSED), {"start": "open"}))
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_the_page_counts_its_modules() -> None:
    """The page in docs is of all modules, and its sum is that of its rows."""
    text = (ROOT / "docs" / "conformance.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| test_")]
    assert {row[0].removeprefix("| ") for row in rows} == set(suite.PYTHON)
    alike = sum("as outside" in row[-1] for row in rows)
    assert f"**{alike} of {len(suite.PYTHON)} modules behave as outside.**" in text
    assert alike >= 60
    differing = [row[0].removeprefix("| ") for row in rows if "differs" in row[-1]]
    assert all(f"- `{name}`" in text for name in differing), "each difference has its reason"
    assert table.line(compare("m", Run(), Run()))


def test_sample(tmp_path: Path) -> None:
    """Real modules, inside and outside, by the same command as the whole."""
    need_runtime()
    if subprocess.run([sys.executable, "-c", "import test.test_fileio"], capture_output=True).returncode:
        pytest.skip("this interpreter has no test package")
    with tempfile.TemporaryDirectory(prefix="sr-conf-") as home:
        guests = Guests(Path(home) / "h")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "conformance", "--sample", "--json", "--work", str(tmp_path)],
                cwd=ROOT, env=guests.environment(), capture_output=True, text=True, timeout=300,
            )  # fmt: skip
        finally:
            guests.stop()
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert set(found) == set(suite.SAMPLE)
    for one in found.values():
        assert one["as_outside"], one
    assert sum(one["alike"] for one in found.values()) > 300
