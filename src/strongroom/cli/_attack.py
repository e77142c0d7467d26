"""The demo's six attacks, and the run of these and all others: each against a fresh enclave, beside its control."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from strongroom import paths
from strongroom.cli._attack_outcomes import (
    GOT,
    MET,
    REFUSED,
    Attempts,
    Outcome,
    pair,
    program,
    reported,
    show,
)
from strongroom.cli._attack_targets import Inside, Ordinary, Target, busy, held, level_of
from strongroom.cli._projects import project, shipped
from strongroom.errors import StrongroomError, UsageError

_DOSE = "dose-of-medicine-5-mg"


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
            seed, marker = held(target)
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
