"""``python -m conformance``: run, compare, write the table. Resumable: what has been run is kept by what was run."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conformance import project, suite, table
from conformance.compare import Run, Verdict, compare

QUIET = 90  # seconds without a word, after which the case at hand is told to end
ROOT = Path(__file__).resolve().parents[1]


def say(text: str) -> None:
    print(f"conformance: {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these modules (test_io, or a numpy path)"
    )
    parser.add_argument(
        "--python", default=os.path.realpath(sys.executable), help="the interpreter (with its test package)"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "conformance", help="where results are kept"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="run inside again what has been run with this very image"
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.add_argument("--numpy", action="store_true", help="numpy's sampled tests too")
    parser.add_argument("--sample", action="store_true", help="a few quick modules, in a small enclave")
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md")
    return parser.parse_args()


def keep_the_clock() -> None:
    """Some tests set the machine's clock where they may: as root they lose that right first (CAP_SYS_TIME is 25)."""
    ctypes.CDLL(None).prctl(24, 25, 0, 0, 0)  # PR_CAPBSET_DROP


def run(command: list[str], timeout: float, environment: dict[str, str]) -> tuple[str, str, float]:
    """Output (both streams, in order), what stopped it ("" when it ended by itself), seconds."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch, tempfile.TemporaryFile() as out:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=scratch,
            env={**environment, "TMPDIR": scratch}, start_new_session=True, preexec_fn=keep_the_clock,
        )  # fmt: skip
        stopped = ""
        size, quiet_since = 0, began
        try:
            while process.poll() is None:
                now = time.monotonic()
                if now - began > timeout:
                    stopped = f"stopped after {timeout:.0f} s"
                    break
                if os.fstat(out.fileno()).st_size != size:
                    size, quiet_since = os.fstat(out.fileno()).st_size, now
                elif now - quiet_since > QUIET:
                    process.send_signal(signal.SIGUSR2)
                    quiet_since = now
                time.sleep(0.05)
            if process.returncode:
                stopped = f"status {process.returncode}"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        return out.read().decode("utf-8", "replace"), stopped, time.monotonic() - began


def result(kept: Path, command: list[str], timeout: float, environment: dict[str, str], fresh: bool) -> Run:
    """The run's result, from ``kept`` where it is there."""
    if kept.is_file() and not fresh:
        known = Run.from_json(json.loads(kept.read_text()))
        if known.module != "stopped":  # something from outside may have ended it
            return known
    text, stopped, seconds = run(command, timeout, environment)
    found = Run.read(text)
    found.seconds = round(seconds, 1)
    if found.module == "stopped":
        tail = [line for line in text.split("\n") if line.strip() and line[0] != "\x1e"][-1:]
        found.why = f"{stopped or 'ended early'}: {tail[0][:200] if tail else 'no output'}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.with_suffix(".log").write_text(text)
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps(found.to_json(), indent=1))
    partial.rename(kept)
    return found


def main() -> int:
    given = arguments()
    names = (
        list(suite.SAMPLE)
        if given.sample
        else given.only or [*suite.PYTHON, *(suite.NUMPY if given.numpy else ())]
    )
    work: Path = given.work.resolve()
    environment = {**os.environ, **project.ENVIRONMENT, "PYTHONPATH": str(ROOT / "src")}
    verdicts: list[Verdict] = []
    projects: dict[bool, tuple[Path, str]] = {}
    project.ensure_vm()
    for number, name in enumerate(names, 1):
        of_numpy = name.startswith("numpy/")
        # numpy is this environment's; the interpreter's own tests want it as it is installed.
        python = given.python or (sys.executable if of_numpy else os.path.realpath(sys.executable))
        if of_numpy not in projects:
            folder = project.build(python, work, of_numpy, say, suite.SAMPLE if given.sample else ())
            facts = json.loads((folder / "build" / "enclave.json").read_text())
            projects[of_numpy] = folder, facts["mrenclave"][:16]
        folder, identity = projects[of_numpy]
        more = [str(suite.NUMPY_STRIDE)] if of_numpy else []
        runner = hashlib.sha256((folder / "runner.py").read_bytes()).hexdigest()[:8]
        file = name.replace("/", "-") + ".json"
        limit = suite.timeout_of(name)
        plain = {key: value for key, value in environment.items() if key != "PYTHONPATH"}
        outside = result(
            work / f"outside-{runner}" / file, project.outside_command(python, folder, name, *more), limit,
            plain, False,
        )  # fmt: skip
        inside = result(
            work / f"inside-{identity}" / file, project.inside_command(folder, name, *more), limit, environment,
            given.fresh,
        )  # fmt: skip
        verdict = compare(name, outside, inside)
        verdicts.append(verdict)
        seconds = f"{outside.seconds:.0f} s outside, {inside.seconds:.0f} s inside"
        say(f"[{number}/{len(names)}] {table.line(verdict)} ({seconds})")
    if given.json:
        print(json.dumps([table.as_json(one) for one in verdicts], indent=1))
    if given.write:
        (ROOT / "docs" / "conformance.md").write_text(
            table.page(verdicts, given.python or os.path.realpath(sys.executable))
        )
    alike = sum(one.as_outside for one in verdicts)
    say(f"{alike} of {len(verdicts)} behave as outside")
    return 0


if __name__ == "__main__":
    shutil.rmtree(Path(tempfile.gettempdir()) / "conformance-leftover", ignore_errors=True)
    sys.exit(main())
