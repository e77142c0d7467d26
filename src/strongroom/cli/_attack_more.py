"""The attacks beyond the demo's six, each beside its control: run by ``strongroom attack --all``, or by name."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from strongroom import paths
from strongroom.cli import _compiled, _intruder
from strongroom.cli._attack import (
    process_attack,
)
from strongroom.cli._attack_evicted import evicted, from_within
from strongroom.cli._attack_late import late
from strongroom.cli._attack_outcomes import (
    Attempts,
    Outcome,
    pair,
    program,
    reported,
)
from strongroom.cli._attack_targets import (
    Inside,
    Ordinary,
    Target,
    held,
    level_of,
)
from strongroom.cli._projects import project, shipped

_DOSE = "dose-of-medicine-5-mg"


def inject(vm: str, level: str | None) -> list[Outcome]:
    """System calls put into a stopped thread."""

    def on(target: Target) -> Attempts:
        _, marker = held(target)
        words = [str(_compiled.program("injection")), str(target.pid), marker.hex(), str(target.elrange)]
        return reported(words, "injection")

    def control() -> Attempts:
        with Ordinary() as target:
            return on(target)

    def enclave() -> tuple[str, Attempts]:
        with Inside(project("attacks/target"), vm, level) as target:
            return target.level, on(target)

    return pair("inject", control, enclave)


def fuses(vm: str, level: str | None) -> list[Outcome]:
    """The fuses on the disk, and what they are good for."""

    def control() -> Attempts:
        with Ordinary() as target:
            key = target.ask("key", b"")
            return program(["fuses.py", "--pid", str(target.pid), "--key", key.hex()])

    def enclave() -> tuple[str, Attempts]:
        from strongroom.machine.pki import Authority, collateral_json

        with (
            Inside(project("attacks/target"), vm, level) as target,
            tempfile.TemporaryDirectory(prefix="sr-attack-") as folder,
        ):
            place, home = Path(folder), paths.home()
            key = target.ask("key", b"")
            (place / "quote").write_bytes(target.box.quote(secrets.token_bytes(32)))
            (place / "root").write_text(Authority.open(home).root_pem)
            (place / "collateral").write_text(collateral_json(home, "run", datetime.now(UTC)))
            words = [
                word for name in ("quote", "root", "collateral") for word in (f"--{name}", str(place / name))
            ]
            return target.level, program(["fuses.py", "--key", key.hex(), "--home", str(home), *words])

    return pair("fuses", control, enclave)


def misuse(vm: str, only: tuple[str, ...], attack: str) -> list[Outcome]:
    """attacks/misuse.c: entries, frames and saved state, from within the host program."""

    def chosen(attempts: Attempts) -> Attempts:
        return [one for one in attempts if one["name"] in only] or attempts

    def control() -> Attempts:
        return chosen(reported([str(_compiled.program("misuse")), "--plain"], "misuse"))

    def enclave() -> tuple[str, Attempts]:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            words = _intruder.misuse(vm, Path(folder))
            return "faithful (exec)", chosen(reported(words, "misuse"))

    return pair(attack, control, enclave)


def image(vm: str, level: str | None) -> list[Outcome]:
    """Images and signatures changed on the disk."""

    def control() -> Attempts:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            copy = Path(shutil.copytree(shipped("attacks") / "trusted", Path(folder) / "trusted"))
            argv = json.dumps([sys.executable, str(copy / "main.py")])
            return program(["image.py", "--script", str(copy / "main.py"), "--text", _DOSE, "--argv", argv])

    def enclave() -> tuple[str, Attempts]:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            copy = Path(shutil.copytree(project("attacks/trusted"), Path(folder) / "trusted"))
            words = [sys.executable, "-m", "strongroom", "run", "--vm", vm]
            words += [*(["--level", level] if level else []), str(copy)]
            folder_words = ["image.py", "--folder", str(copy / "build"), "--text", _DOSE]
            return level_of(level), program([*folder_words, "--argv", json.dumps(words)])

    return pair("image", control, enclave)


def loader(vm: str) -> list[Outcome]:
    """A loader that lies to the enclave."""
    victim = shipped("attacks") / "iago" / "victim.py"

    def control() -> Attempts:
        library = _compiled.program("preload", "-shared", "-fPIC")
        argv = ["env", f"LD_PRELOAD={library}", sys.executable, str(victim)]
        return program(["loader_lies.py", "--control", "--argv", json.dumps(argv)])

    def enclave() -> tuple[str, Attempts]:
        liar = _compiled.liar()
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            copy = Path(shutil.copytree(project("attacks/iago"), Path(folder) / "iago"))
            argv = [sys.executable, "-m", "strongroom", "exec", "--vm", vm, "--"]
            argv += [str(shutil.copy2(liar, copy / "liar")), "{lie}", str(copy / "build")]
            return "faithful (exec)", program(
                ["loader_lies.py", "--folder", str(copy), "--argv", json.dumps(argv)]
            )

    return pair("loader", control, enclave)


def rollback(vm: str, level: str | None) -> list[Outcome]:
    """A sealed folder put back to an older state, and one changed by a byte."""

    def control() -> Attempts:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            script = shipped("attacks") / "vault" / "main.py"
            argv = json.dumps(["env", f"VAULT={folder}/store", sys.executable, str(script)])
            (Path(folder) / "store").mkdir()
            return program(["rollback.py", "--folder", f"{folder}/store", "--argv", argv])

    def enclave() -> tuple[str, Attempts]:
        with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
            copy = Path(shutil.copytree(project("attacks/vault"), Path(folder) / "vault"))
            (copy / "store").mkdir()
            (copy / "store").chmod(
                0o777
            )  # the enclave has a user of its own, and not every file system maps it
            words = [sys.executable, "-m", "strongroom", "run", "--vm", vm]
            argv = json.dumps([*words, *(["--level", level] if level else []), str(copy)])
            return level_of(level), program(["rollback.py", "--folder", str(copy / "store"), "--argv", argv])

    return pair("rollback", control, enclave)


def neighbour(vm: str, level: str | None) -> list[Outcome]:
    """A second process in the enclave's VM: its root, and an ordinary user of it."""
    script = shipped("attacks") / "neighbour.py"
    kinds = ([], ["--drop"]) if os.geteuid() == 0 else ([],)

    def control() -> Attempts:
        found = []
        for options in kinds:
            with Ordinary("ordinary.py", *options) as target:
                _, marker = held(target)
                words = ["--marker", marker.hex(), "--pid", str(target.pid), *options]
                found += program([script.name, *words])
        return found

    def enclave() -> tuple[str, Attempts]:
        with Inside(project("attacks/target"), vm, level) as target:
            _, marker = held(target)
            words = [sys.executable, "-m", "strongroom", "exec", "--vm", vm, "--", sys.executable]
            words += [str(script), "--marker", marker.hex(), "--pid", str(target.pid), "--all"]
            return target.level, [
                one for options in kinds for one in reported([*words, *options], script.name)
            ]

    return pair("neighbour", control, enclave)


Run = Callable[[str, str | None], list[Outcome]]
FRAME = ("the signal frame at an asynchronous exit", "all memory of the process at an asynchronous exit")
TCS = ("entries out of order", "the saved state is changed before the resume")
WITHIN = frozenset({"evictor", "frame", "tcs", "loader"})
"""From within a host program, by ``exec``: the level makes no difference."""
MORE: dict[str, tuple[str, Run]] = {
    "descriptors": (
        "its descriptors and mappings are opened by others",
        lambda vm, level: process_attack("descriptors", "descriptors.py", vm, level),
    ),
    "inject": ("ptrace injection: its own thread is made to write its memory out", inject),
    "tracing": (
        "the kernel's own tracing: perf, eBPF, uprobes",
        lambda vm, level: process_attack("tracing", "tracing.py", vm, level, working=True),
    ),
    "everywhere": (
        "every map, file, socket and pipe of the VM and of the daemon",
        lambda vm, level: process_attack("everywhere", "everywhere.py", vm, level),
    ),
    "dump": (
        "swap, hibernation, core dumps, logs of a crash",
        lambda vm, level: process_attack("dump", "dump.py", vm, level),
    ),
    "evicted": ("evicted pages of an enclave that is larger than the EPC", evicted),
    "late": ("code made at run time, in an enclave that asks for it", late),
    "evictor": ("evicted pages, by the host program itself", from_within),
    "fuses": ("the fuses on the disk", fuses),
    "frame": (
        "what the host part is shown at an asynchronous exit",
        lambda vm, level: misuse(vm, FRAME, "frame"),
    ),
    "tcs": ("TCS and SSA misuse", lambda vm, level: misuse(vm, TCS, "tcs")),
    "image": ("a hostile image", image),
    "loader": ("a hostile loader (Iago)", lambda vm, level: loader(vm)),
    "rollback": ("a sealed folder, rolled back and altered", rollback),
    "neighbour": ("a second process of the same VM, and its root", neighbour),
}
