"""Runs the programs under ``attacks/`` against a fresh enclave each, and against an ordinary process as a control.

An attack that the control withstands proves nothing about the enclave: its attempts are then "not tried".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strongroom import paths
from strongroom.cli._projects import elrange_of, project, shipped
from strongroom.errors import StrongroomError, UsageError

GOT, REFUSED, MET, NOT_TRIED = "got", "refused", "met", "not tried"
ATTACK_SECONDS = 150
CALL_SECONDS = 30.0
_PREFIX = b"strongroom attack marker"
_DOSE = "dose-of-medicine-5-mg"


@dataclass(frozen=True)
class Outcome:
    """One attempt: what came of it at the enclave and at the control. Results: got, refused, met, not tried."""

    attack: str
    attempt: str
    result: str
    text: str
    control_result: str
    control_text: str
    level: str


def program(words: list[str]) -> list[dict[str, str]]:
    """Run one of the Python attacks and read its report."""
    return reported([sys.executable, str(shipped("attacks") / words[0]), *words[1:]], words[0])


def reported(words: list[str], name: str = "intruder") -> list[dict[str, str]]:
    """Run an attack and read its report; one that fails is one attempt "not tried"."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ATTACK_SECONDS, check=False)
        attempts = json.loads(done.stdout)["attempts"]
        if not attempts:
            raise ValueError
        return [{key: str(one[key]) for key in ("name", "result", "text")} for one in attempts]
    except subprocess.TimeoutExpired:
        return [{"name": name, "result": NOT_TRIED, "text": f"{name} did not end within {ATTACK_SECONDS} s"}]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return [
            {"name": name, "result": NOT_TRIED, "text": f"{name} failed (status {done.returncode}): {last}"}
        ]


class Ordinary:
    """The control: attacks/ordinary.py, an ordinary Python process that holds the same marker; or another script."""

    level = "none"
    elrange = 0

    def __init__(self, script: str = "ordinary.py", *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sr-attack-")
        self._process = subprocess.Popen(
            [sys.executable, str(shipped("attacks") / script), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self._folder.name,
        )  # fmt: skip
        self.pid = self._process.pid

    def ask(self, verb: str, seed: bytes) -> bytes:
        """Its answer. Raises StrongroomError where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{verb} {seed.hex()}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().strip()
        except OSError as error:
            raise StrongroomError(f"the control ended ({error.strerror})") from error
        if not answer:
            raise StrongroomError("the control ended")
        return bytes.fromhex(answer) if verb in ("hold", "key") else answer.encode()

    def __enter__(self) -> Ordinary:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


class Inside:
    """The enclave of attacks/target in a VM, and the process id that holds it, as this process sees it."""

    def __init__(self, built: Path, vm: str, level: str | None) -> None:
        from strongroom import Enclave

        self.elrange = elrange_of(built)
        before = programs(vm)
        self.box = Enclave(built, vm=vm, timeout=CALL_SECONDS)
        try:
            with forced_level(level):
                self.box.start()
            self.level = self.box.facts["level"]
            fresh = programs(vm) - before
            if len(fresh) != 1:
                raise StrongroomError(
                    f"{len(fresh)} new enclaves are seen, not 1",
                    "let nothing else run in the VM meanwhile",
                )
            (self.pid,) = fresh
        except BaseException:
            self.close()
            raise

    def ask(self, verb: str, seed: bytes) -> bytes:
        """The exported function's result. Raises StrongroomError."""
        answer: bytes = getattr(self.box, verb)(seed)
        return answer

    def close(self) -> None:
        with contextlib.suppress(StrongroomError):
            self.box.close()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Target = Ordinary | Inside
Attempts = list[dict[str, str]]
"""What came of each attempt: "name", "result", "text"."""


@contextlib.contextmanager
def forced_level(level: str | None) -> Iterator[None]:
    """While this lasts, what is started runs at that level."""
    from strongroom.machine.level import ENVIRONMENT

    before = os.environ.get(ENVIRONMENT)
    if level:
        os.environ[ENVIRONMENT] = level
    try:
        yield
    finally:
        if level and before is None:
            del os.environ[ENVIRONMENT]
        elif level and before is not None:
            os.environ[ENVIRONMENT] = before


def programs(vm: str) -> set[int]:
    """Process ids of the enclaves that run in a VM of this STRONGROOM_HOME."""
    from strongroom.machine import client

    try:
        usage = client.ask("usage", start=False).get("vms", {})
    except client.NoDaemon:
        return set()
    return set(usage.get(vm, {}).get("programs", []))


def held(target: Target) -> tuple[bytes, bytes]:
    """Have the target hold a marker: (seed, marker). Raises StrongroomError."""
    seed = secrets.token_bytes(16)
    # Known to the attacker here so that it can be looked for; the target's process never got it, but made it.
    marker = hashlib.sha256(_PREFIX + seed).digest()
    if target.ask("hold", seed) != hashlib.sha256(marker).digest():
        raise StrongroomError("the target does not hold the marker")
    return seed, marker


@contextlib.contextmanager
def busy(target: Target, seed: bytes) -> Iterator[None]:
    """While this lasts the target computes with its marker."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(StrongroomError):
            while not ended.is_set():
                target.ask("use", seed)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def on_process(script: str, target: Target, *, working: bool = False) -> Attempts:
    """Have the target hold a marker, run the attack on its process, then ask whether all is as it was."""
    seed, marker = held(target)
    with (
        tempfile.TemporaryDirectory(prefix="sr-attack-") as scratch,
        busy(target, seed) if working else contextlib.nullcontext(),
    ):
        words = ["--pid", str(target.pid), "--marker", marker.hex(), "--elrange", str(target.elrange)]
        home = ["--home", str(paths.home())] if isinstance(target, Inside) else []
        attempts = program([script, *words, "--scratch", scratch, *home])
    if script == "data_write.py":
        attempts.append(after_write(target, seed))
    return attempts


def after_write(target: Target, seed: bytes) -> dict[str, str]:
    """What the target says of its marker after the writes; an enclave that was changed has to refuse entry."""
    name = "the value after the writes"
    try:
        intact = target.ask("intact", seed)
    except StrongroomError as error:
        return {"name": name, "result": REFUSED, "text": f"the enclave refuses every call: {error}"}
    if intact == b"yes":
        return {"name": name, "result": MET, "text": "unchanged, and the enclave answers"}
    return {"name": name, "result": GOT, "text": "changed, and nothing noticed"}


def pair(
    attack: str,
    control: Callable[[], Attempts],
    enclave: Callable[[], tuple[str, Attempts]],
) -> list[Outcome]:
    """Run the control, then the enclave's side, and set them side by side by the attempts' order."""
    try:
        controls = control()
    except StrongroomError as error:
        controls = [{"name": attack, "result": NOT_TRIED, "text": str(error)}]
    level = "?"
    try:
        level, attempts = enclave()
    except StrongroomError as error:
        attempts = [{"name": one["name"], "result": NOT_TRIED, "text": str(error)} for one in controls]
    outcomes = []
    for index, one in enumerate(attempts):
        beside = next(
            (c for c in controls if c["name"] == one["name"]), controls[min(index, len(controls) - 1)]
        )
        result, text = one["result"], one["text"]
        if beside["result"] != GOT and result != NOT_TRIED:
            result, text = NOT_TRIED, f"the control failed, which makes this void ({beside['text']})"
        outcomes.append(Outcome(attack, one["name"], result, text, beside["result"], beside["text"], level))
    return outcomes


def each_on_its_own(
    tried: Mapping[str, Callable[[Target], dict[str, str]]], start: Callable[[], Target]
) -> tuple[str, Attempts]:
    """Each attempt, by its name, on a target that was started for it; and the level that they had."""
    level, found = "?", []
    for name, attempt in tried.items():
        with start() as target:
            level = target.level
            found.append({**attempt(target), "name": name})
    return level, found


def process_attack(
    attack: str, script: str, vm: str, level: str | None, *, working: bool = False
) -> list[Outcome]:
    """An attack on a running process; ``working``: one that computes meanwhile."""

    def control() -> Attempts:
        with Ordinary() as target:
            return on_process(script, target, working=working)

    def enclave() -> tuple[str, Attempts]:
        with Inside(project("attacks/target"), vm, level) as target:
            return target.level, on_process(script, target, working=working)

    return pair(attack, control, enclave)


def intruder_attack(attack: str, vm: str) -> list[Outcome]:
    """The host part itself reads and writes: on the enclave's side a program of its own, under ``exec``."""
    from strongroom.cli import _intruder

    def control() -> Attempts:
        with Ordinary() as target:
            seed = secrets.token_bytes(16)
            marker = hashlib.sha256(_PREFIX + seed).digest()
            target.ask("hold", seed)
            loaded = bytes.fromhex(target.ask("load", seed).decode()) == marker
            target.ask("store", seed)
            stored = target.ask("intact", seed) == b"no"
        return [
            {"name": "a load by the host part", **_said(loaded, "the marker")},
            {"name": "a store by the host part", **_said(stored, "the value is the one stored")},
        ]

    def enclave() -> tuple[str, Attempts]:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            return "faithful (exec)", reported(_intruder.command(vm, Path(folder)))

    return pair(attack, control, enclave)


def _said(had: bool, what: str) -> dict[str, str]:
    return {"result": GOT, "text": what} if had else {"result": REFUSED, "text": f"not {what}"}


def file_attack(attack: str, vm: str, level: str | None) -> list[Outcome]:
    """A trusted file changed by a byte, in a copy of the image."""

    def control() -> Attempts:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            copy = Path(shutil.copytree(shipped("attacks") / "trusted", Path(folder) / "trusted"))
            argv = json.dumps([sys.executable, str(copy / "main.py")])
            return program(
                ["trusted_file.py", "--file", str(copy / "dose.txt"), "--text", _DOSE, "--argv", argv]
            )

    def enclave() -> tuple[str, Attempts]:
        built = project("attacks/trusted")
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            copy = Path(shutil.copytree(built, Path(folder) / "trusted"))
            words = [
                sys.executable,
                "-m",
                "strongroom",
                "run",
                "--vm",
                vm,
                *(["--level", level] if level else []),
                str(copy),
            ]
            pack = str(copy / "build" / "files.pack")
            return level_of(level), program(
                ["trusted_file.py", "--file", pack, "--text", _DOSE, "--argv", json.dumps(words)]
            )

    return pair(attack, control, enclave)


def quote_attack(attack: str, vm: str, level: str | None) -> list[Outcome]:
    """A quote of the running enclave, altered part by part."""

    def control() -> Attempts:
        return program(["altered_quote.py", "--statement", str(shipped("attacks") / "ordinary.py")])

    def enclave() -> tuple[str, Attempts]:
        from strongroom.machine.pki import Authority, collateral_json

        with (
            Inside(project("attacks/target"), vm, level) as target,
            tempfile.TemporaryDirectory(prefix="sr-attack-") as folder,
        ):
            place = Path(folder)
            (place / "quote").write_bytes(target.box.quote(secrets.token_bytes(32)))
            (place / "root.pem").write_text(Authority.open(paths.home()).root_pem)
            (place / "collateral").write_text(collateral_json(paths.home(), "run", datetime.now(UTC)))
            words = [
                word
                for name in ("quote", "collateral", "root.pem")
                for word in (f"--{name.removesuffix('.pem')}", str(place / name))
            ]
            return target.level, program(["altered_quote.py", *words])

    return pair(attack, control, enclave)


def level_of(forced: str | None) -> str:
    """The level that a run gets here."""
    from strongroom.machine import level

    return str(level.choose(level.find_facts(), forced or level.from_environment()))


ATTACKS: dict[str, tuple[str, Callable[[str, str | None], list[Outcome]]]] = {
    "debugger": (
        "a debugger attaches; a core file is written",
        lambda vm, level: process_attack("debugger", "debugger.py", vm, level),
    ),
    "memory": (
        "another process reads memory",
        lambda vm, level: process_attack("memory", "memory.py", vm, level),
    ),
    "code": (
        "a write into a code page",
        lambda vm, level: process_attack("code", "code_write.py", vm, level),
    ),
    "data": (
        "a write into the data from outside",
        lambda vm, level: process_attack("data", "data_write.py", vm, level) + intruder_attack("data", vm),
    ),
    "file": ("a trusted file changed by a byte", lambda vm, level: file_attack("file", vm, level)),
    "quote": ("an altered quote", lambda vm, level: quote_attack("quote", vm, level)),
}


def run_all(
    vm: str,
    level: str | None,
    only: list[str],
    *,
    progress: bool,
    every: bool = False,
    skip: frozenset[str] = frozenset(),
) -> list[Outcome]:
    """Run the attacks named, or the six of the demo, or ``every`` one; none of ``skip``. Raises UsageError."""
    from strongroom.cli._attack_more import MORE

    known = {**ATTACKS, **MORE}
    for name in only:
        if name not in known:
            raise UsageError(f"no attack {name!r}", f"choose of {', '.join(known)}")
    outcomes: list[Outcome] = []
    for name, (what, run) in known.items():
        if name in skip or (name not in only if only else name not in ATTACKS and not every):
            continue
        found = run(vm, level)
        outcomes += found
        if progress:
            show(name, what, found)
    return outcomes


def show(name: str, what: str, outcomes: list[Outcome]) -> None:
    """One attack's outcome for people."""
    from strongroom.cli._output import console, one_line

    colours = {GOT: "yellow", REFUSED: "green", MET: "green", NOT_TRIED: "dim"}
    out = console()
    out.print(f"[bold]{name}[/bold] · {what} [dim]· level {outcomes[0].level}[/dim]")
    for one in outcomes:
        elsewhere = f" (level {one.level})" if one.level != outcomes[0].level else ""
        out.print(f"  {one.attempt}{elsewhere}", markup=False)
        for who, result, text in (
            ("enclave", one.result, one.text),
            ("control", one.control_result, one.control_text),
        ):
            colour = colours[result] if who == "enclave" else "dim"
            out.print(f"    {who:8}[{colour}]{result:10}[/{colour}]", end="")
            out.print(one_line(text), markup=False)


def to_plain(outcomes: list[Outcome]) -> dict[str, Any]:
    """For --json."""
    return {
        "level": outcomes[0].level if outcomes else "?",
        "as_promised": as_promised(outcomes),
        "attempts": [asdict(one) for one in outcomes],
    }


# What a level lets an attacker of the same rights as this program have; anything else that is got breaks the promise.
# The kernel's tracing and the fuses on the disk are open to the host's root at every level, and older states of sealed
# files are as on hardware (docs/threat-model.md); an injection is a race with the watch, which the attacker may win.
_OPEN_EVERYWHERE = {
    "fuses",
    "inject",
    "an older state of the sealed folder",
    "perf, samples of the user stack",
    "eBPF at each perf sample, reads memory",
    "a uprobe outside the enclave, its eBPF program reads memory",
}
_OPEN_TO_ROOT = {
    "debugger",
    "memory",
    "code",
    "data",
    "descriptors",
    "everywhere",
    "dump",
    "neighbour",
    "late",
}
# Code cannot be secret memory; what is written and run in quick turns stays writable (docs/deviations.md).
_OPEN_CODE = {
    "/proc/PID/mem, code pages",
    "code made inside and run: read",
    "code written and run in quick turns: changed",
}
_OPEN_AT: dict[str, set[str]] = {
    "sealed": _OPEN_EVERYWHERE | _OPEN_CODE,
    "separated": _OPEN_EVERYWHERE | _OPEN_TO_ROOT,
    "faithful": _OPEN_EVERYWHERE | _OPEN_TO_ROOT,
    "faithful (exec)": {
        "all memory of the process at an asynchronous exit",
        "interrupted, or nothing yet, for ever",
    },
}


def as_promised(outcomes: list[Outcome]) -> bool:
    """Whether nothing was got that the level keeps out, and nothing was left untried that could be tried here.

    What could not be tried at the control either, this machine does not offer.
    """
    for one in outcomes:
        absent = one.control_result == NOT_TRIED and "failed (status" not in one.text
        if one.result == NOT_TRIED and "not installed" not in one.text and not absent:
            return False
        open_here = _OPEN_AT.get(one.level, set())
        if one.result == GOT and one.attack not in open_here and one.attempt not in open_here:
            return False
    return True
