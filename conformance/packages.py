"""``python -m conformance.packages``: popular distributions inside and outside, and docs/packages.md from them.

Each file of ``programs/`` is a small program that says in its head (PEP 723) which distributions it wants and what
``enclave.toml`` needs for it. It runs in a fresh enclave and in a fresh ordinary process of the same interpreter;
*alike*: the same standard output and status, the same answers to calls from outside.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from conformance import project

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAMS = HERE / "programs"
LIMIT = 300.0
_HEAD = re.compile(r"^# /// script\n((?:#.*\n)*?)# ///\n", re.MULTILINE)
_STRONGROOM = [sys.executable, "-m", "strongroom"]


@dataclass(frozen=True)
class Program:
    """One file of ``programs/``. ``calls``: requests from outside; ``differs``: why another outcome is expected;
    ``note``: why the manifest needs what it does; ``optional``: `--list` leaves it out."""

    path: Path
    says: str
    dependencies: tuple[str, ...]
    settings: dict[str, Any]
    calls: tuple[tuple[str, str, str], ...]
    differs: str
    note: str
    optional: bool

    @property
    def name(self) -> str:
        return self.path.stem

    def tables(self) -> dict[str, dict[str, Any]]:
        """The manifest's tables, beyond ``main`` and ``packages``."""
        plain = {key: value for key, value in self.settings.items() if not isinstance(value, dict)}
        return {"enclave": plain} | {
            key: value for key, value in self.settings.items() if isinstance(value, dict)
        }

    def lines(self) -> list[str]:
        """The lines of these tables."""
        return [
            f"[{table}] {one}" if table != "enclave" else one
            for table, values in self.tables().items()
            for one in _table(values)
        ]

    def manifest(self) -> str:
        """``enclave.toml``."""
        tables = self.tables()
        tables["enclave"] = {"main": "main.py", "packages": list(self.dependencies), **tables["enclave"]}
        return "\n".join(one for name, values in tables.items() for one in (f"[{name}]", *_table(values), ""))


def read(path: Path) -> Program:
    """A program with what its head says."""
    text = path.read_text()
    head = _HEAD.search(text)
    if head is None:
        raise SystemExit(f"{path} has no head (PEP 723)")
    found = tomllib.loads("".join(line[2:] or "\n" for line in head[1].splitlines(keepends=True)))
    tool = found.get("tool", {})
    about = tool.get("conformance", {})
    calls = tuple((method, url, body) for method, url, body in about.get("calls", ()))
    says = ast.get_docstring(ast.parse(text)) or ""
    return Program(
        path, " ".join(says.split()), tuple(found["dependencies"]), tool.get("strongroom", {}), calls,
        about.get("differs", ""), about.get("note", ""), about.get("optional", False),
    )  # fmt: skip


def _table(values: dict[str, Any]) -> list[str]:
    def key(name: str) -> str:
        return name if re.fullmatch(r"[\w-]+", name) else json.dumps(name)

    return [f"{key(name)} = {json.dumps(value)}" for name, value in values.items()]


@dataclass
class Ran:
    """One run: what it printed, how it ended, what it answered to the calls."""

    out: str
    err: str
    status: int
    seconds: float
    answers: list[str] = field(default_factory=list)

    def said(self) -> tuple[str, int, list[str]]:
        return self.out, self.status, self.answers


@dataclass
class Verdict:
    program: Program
    versions: dict[str, str]
    outside: Ran
    inside: Ran
    epc_size: int

    @property
    def alike(self) -> bool:
        return self.outside.status == 0 and self.outside.said() == self.inside.said()

    @property
    def as_expected(self) -> bool:
        return self.outside.status == 0 and self.alike != bool(self.program.differs)

    @property
    def warnings(self) -> int:
        """Lines on standard error inside beyond the run's own and those that are there outside."""
        return max(0, len(self.inside.err.splitlines()) - 1 - len(self.outside.err.splitlines()))

    def to_json(self) -> dict[str, Any]:
        return {
            "versions": self.versions, "outside": asdict(self.outside), "inside": asdict(self.inside),
            "epc_size": self.epc_size,
        }  # fmt: skip

    @classmethod
    def from_json(cls, program: Program, data: dict[str, Any]) -> Verdict:
        return cls(program, data["versions"], Ran(**data["outside"]), Ran(**data["inside"]), data["epc_size"])


# ---- building and running ----


def build(program: Program, python: str, work: Path) -> tuple[Path, dict[str, Any]]:
    """The built project below ``work``, and what `build --json` said."""
    folder = work / program.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(program.path, folder / "main.py")
    (folder / "enclave.toml").write_text(program.manifest())
    done = subprocess.run(
        [*_STRONGROOM, "build", "--json", "--python", python, str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{program.name}: {done.stderr}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return folder, facts


def run(program: Program, command: list[str], work: Path) -> Ran:
    """Run it with a folder of its own as the working one; a server gets a free port, and its calls."""
    with (
        tempfile.TemporaryDirectory(prefix="conformance-", dir=work) as scratch,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        port = _free_port() if program.calls else 0
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, *([str(port)] if port else [])], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            cwd=scratch, env={**os.environ, **project.ENVIRONMENT}, start_new_session=True,
        )  # fmt: skip
        answers = []
        try:
            if port:
                answers = [_call(process, port, *call) for call in program.calls]
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            answers.append(f"stopped after {LIMIT:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        return Ran(
            out.read().decode("utf-8", "replace"),
            err.read().decode("utf-8", "replace"),
            status,
            seconds,
            answers,
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _call(process: subprocess.Popen[bytes], port: int, method: str, url: str, body: str) -> str:
    """One request's answer; waits for the server to listen."""
    until = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, url, body or None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return f"{answer.status} {answer.read().decode()}"
        except ConnectionRefusedError:
            time.sleep(0.05)
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
    return "not there"


def inside(program: Program, folder: Path) -> Ran:
    """In a fresh enclave."""
    words = [*_STRONGROOM, "run", "--vm", project.VM, str(folder)]
    return run(program, [*words, "--"] if program.calls else words, folder)


def outside(program: Program, folder: Path, python: str) -> Ran:
    """In an ordinary process."""
    return run(program, [python, "-I", "-B", str(folder / "main.py")], folder)


def versions(program: Program, python: str) -> dict[str, str] | None:
    """The installed versions of what the program names; None: something is not installed."""
    code = "import sys; from importlib.metadata import version; [print(version(n)) for n in sys.argv[1:]]"
    names = [re.split(r"[^\w.-]", one)[0] for one in program.dependencies]
    done = subprocess.run([python, "-I", "-c", code, *names], capture_output=True, text=True, check=False)
    return None if done.returncode else dict(zip(names, done.stdout.split(), strict=True))


def judge(program: Program, python: str, work: Path, kept: bool) -> Verdict | None:
    """Build, run on both sides; or, with ``kept``, what that gave the last time. None: not installed."""
    found = versions(program, python)
    if found is None:
        return None
    file = work / f"{program.name}.json"
    key = hashlib.sha256(program.path.read_bytes()).hexdigest()
    if kept and file.is_file():
        data = json.loads(file.read_text())
        if data["key"] == key and data["versions"] == found:
            return Verdict.from_json(program, data)
    folder, facts = build(program, python, work)
    verdict = Verdict(
        program, found, outside(program, folder, python), inside(program, folder), facts["epc_size"]
    )
    file.write_text(json.dumps({"key": key, **verdict.to_json()}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    return verdict


# ---- what is said ----


HEAD = """# Packages inside

Made by `{command}` (CPython {python}, {cpus} processors, Linux {kernel}). Each is a
small program of `conformance/programs/`, run in a fresh enclave of a {size} VM and in a fresh ordinary
process of the same interpreter, by the wheels of PyPI as they are. *alike*: the same standard output and status, the
same answers where it is a server that is called from outside. **{alike} of {total} are alike**; what
differs has its reason in the note.

*Manifest* is all that `enclave.toml` needs beyond `main` and `packages` (defaults: `memory = "32M"`, `threads = 4`).
*EPC* is the whole image, its heap included but for `edmm`; `strongroom fit` says which sizes hold it. *Seconds* are of
one run, its start included, outside and inside, beside other work on the machine: an order of magnitude, no benchmark.

| packages | outcome | manifest | EPC, MiB | seconds | note |
| --- | --- | --- | ---: | ---: | --- |
"""
TAIL = """
## What to know

- **memory**: what is missing is said on standard error (`out of memory: ... raise memory`), once; what the library
  itself says of it may be anything. OpenBLAS (numpy, scipy) takes 32 MiB a thread, and numpy and scipy have one each.
  On DCsv3 and DCdsv3 sizes `edmm = true` with a large `memory` spares the counting: the heap costs what is used of it
  (`python -m conformance.packages --edmm` tries them all so).
- **threads**: all threads of all libraries count. The processors that a program sees are the host's or `threads`,
  whichever is less; OpenBLAS and OpenMP start as many each. `asyncio.to_thread` starts processors + 4, a web framework
  up to 40 for ordinary functions. One too many is said (`a thread is refused`).
- **other processes** (multiprocessing, subprocess, joblib's default, gunicorn): refused, and said with the name of who
  asked. Threads in their place: `ThreadPool`, `ThreadPoolExecutor`, joblib's `backend="threading"`.
- **code made at run time**: callbacks of ctypes and cffi need `late_code` ([manifest.md](manifest.md)). What first
  writes memory and then makes it executable (compilers, as numba's) needs `edmm = true` too, on DCsv3 and DCdsv3 sizes.
- **files**: `/tmp` can be written, the home folder cannot: what caches there takes a variable (`[env] HOME = "/tmp"`).
"""


def line(verdict: Verdict) -> str:
    """One line for the terminal."""
    state = "alike" if verdict.alike else "differs"
    if verdict.warnings:
        state += f", {verdict.warnings} lines more on standard error"
    if not verdict.as_expected:
        state += ", NOT AS EXPECTED"
    return (
        f"{verdict.program.name}: {state} ({verdict.outside.seconds:.1f} s outside, {verdict.inside.seconds:.1f} s "
        f"inside, {verdict.epc_size / (1 << 20):.0f} MiB of EPC)"
    )


def page(verdicts: list[Verdict], python: str) -> str:
    """docs/packages.md."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    rows = []
    for one in verdicts:
        names = ", ".join(f"{name} {number}" for name, number in one.versions.items()) or one.program.name
        manifest = "<br>".join(f"`{text}`" for text in one.program.lines())
        note = one.program.differs or one.program.note or one.program.says
        rows.append(
            f"| {names} | {'alike' if one.alike else 'differs'} | {manifest} | {one.epc_size / (1 << 20):.0f} | "
            f"{one.outside.seconds:.1f}, {one.inside.seconds:.1f} | {note} |\n"
        )
    head = HEAD.format(
        command="make packages", python=version, cpus=os.cpu_count(), kernel=platform.release(), size=project.SIZE,
        alike=sum(one.alike for one in verdicts), total=len(verdicts),
    )  # fmt: skip
    return head + "".join(rows) + TAIL


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.packages", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these programs")
    parser.add_argument(
        "--python",
        type=os.path.abspath,
        default=sys.executable,
        help="the interpreter that has the distributions",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "packages", help="where results are kept"
    )
    parser.add_argument("--kept", action="store_true", help="run only what has changed since it was run")
    parser.add_argument(
        "--list", action="store_true", help="print what the programs want installed, and stop"
    )
    parser.add_argument("--write", action="store_true", help="write docs/packages.md")
    parser.add_argument("--edmm", action="store_true", help='with edmm = true and memory = "4G" instead')
    given = parser.parse_args()
    if given.edmm and (given.write or given.kept):
        parser.error("--edmm is for trying: it neither keeps results nor writes the page")
    programs = [read(path) for path in sorted(PROGRAMS.glob("*.py"))]
    if given.only:
        programs = [one for one in programs if one.name in given.only]
    if given.edmm:
        more = {"edmm": True, "memory": "4G"}
        programs = [replace(one, settings={**one.settings, **more}) for one in programs]
    if given.list:
        wanted = {one for program in programs if not program.optional for one in program.dependencies}
        print("\n".join(sorted(wanted)))
        return 0
    given.work.mkdir(parents=True, exist_ok=True)
    project.ensure_vm()
    verdicts = []
    for program in programs:
        verdict = judge(program, given.python, given.work.resolve(), given.kept)
        if verdict is None:
            print(f"{program.name}: left out, not installed for {given.python}", file=sys.stderr, flush=True)
        else:
            verdicts.append(verdict)
            print(line(verdict), file=sys.stderr, flush=True)
    if given.write:
        (ROOT / "docs" / "packages.md").write_text(page(verdicts, given.python))
    return int(not all(one.as_expected for one in verdicts))


if __name__ == "__main__":
    sys.exit(main())
