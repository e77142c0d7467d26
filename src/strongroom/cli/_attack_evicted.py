"""The attacks on evicted pages, against enclaves larger than their VM's EPC.

attacks/evicted.py, step by step, is another process; attacks/evictor.c is the host program itself.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from strongroom.cli import _intruder
from strongroom.cli._attack_outcomes import (
    GOT,
    MET,
    NOT_TRIED,
    REFUSED,
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
    each_on_its_own,
)
from strongroom.cli._machines import machines
from strongroom.cli._projects import project
from strongroom.errors import StrongroomError

SIZE = "Standard_DC1s_v2"
"""Its EPC, 28 MiB, is less than half of what attacks/paged fills."""
WITHIN = ("flip", "swap", "other", "replay", "twice")
"""What attacks/evictor.c tries, each on an enclave of its own."""
LOST = 125
"""The loader's exit status where the processor refuses every entry."""


@contextlib.contextmanager
def _machine() -> Iterator[str]:
    """A VM of its own, gone afterwards."""
    name, ours = f"attack-{secrets.token_hex(4)}", machines()
    ours.create(name, SIZE)
    try:
        yield name
    finally:
        ours.delete(name, force=True)


@dataclass(frozen=True)
class _Steps:
    """The steps of attacks/evicted.py on one target, whose records lie at ``place``."""

    target: Target
    place: int
    scratch: str

    def do(self, step: str, seed: bytes = b"") -> dict[str, str]:
        words = ["--pid", str(self.target.pid), "--elrange", str(self.target.elrange)]
        words += ["--place", str(self.place), "--scratch", self.scratch, "--seed", seed.hex(), "--do", step]
        (one,) = program(["evicted.py", *words])
        return one

    def fill(self, seed: bytes = b"") -> bytes:
        """Have the target write its records, of ``seed`` or of a fresh one; the seed."""
        seed = seed or secrets.token_bytes(16)
        self.target.ask("fill", seed)
        return seed


def _look(steps: _Steps) -> dict[str, str]:
    return steps.do("look", steps.fill())


def _changed(steps: _Steps, step: str) -> dict[str, str]:
    seed = steps.fill()
    return _then(steps.target, steps.do(step), seed, "{wrong} of its records were taken for its own")


def _older(steps: _Steps, believed: str, *, same: bool) -> dict[str, str]:
    """Pages are evicted, come in, are written (the same or anew) and evicted again; the first copy is put back."""
    seed = steps.fill()
    first = steps.do("keep")
    if first["result"] != GOT:
        return first
    newer = steps.fill(seed if same else b"")
    return _then(steps.target, steps.do("put"), newer, believed)


def _then(target: Target, done: dict[str, str], seed: bytes, believed: str) -> dict[str, str]:
    """What the target makes of its records after the step ``done``, and of the next call."""
    if done["result"] != GOT:
        return done
    try:
        wrong = int(target.ask("wrong", seed))
    except StrongroomError as error:
        said = f"{done['text']}: {error}"
        if f"exit status {LOST}" not in str(error):
            return {"result": NOT_TRIED, "text": f"{said}: it ended otherwise"}
        try:
            target.ask("place", b"")
        except StrongroomError:
            return {"result": REFUSED, "text": f"{said}; so is each later call"}
        return {"result": GOT, "text": f"{said}; but it answers the next call"}
    if isinstance(target, Inside) and not wrong:
        return {"result": MET, "text": f"{done['text']}; its records are as they were"}
    return {"result": GOT, "text": f"{done['text']}: {believed.format(wrong=f'{wrong:,}')}"}


TRIED: dict[str, Callable[[_Steps], dict[str, str]]] = {
    "evicted pages, searched for what was written": _look,
    "evicted pages changed by a bit": partial(_changed, step="flip"),
    "evicted pages swapped": partial(_changed, step="swap"),
    "evicted pages replayed: older content": partial(
        _older, believed="{wrong} records of before were taken for those of now", same=False
    ),
    "a page evicted twice: its first copy, of the same content": partial(
        _older, believed="its pages of before were taken for the ones of now", same=True
    ),
}


def _try(target: Target, tried: Callable[[_Steps], dict[str, str]]) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="sr-attack-") as scratch:
        return tried(_Steps(target, int(target.ask("place", b"")), scratch))


def attempts(start: Callable[[], Target]) -> tuple[str, Attempts]:
    """Each attempt, on a target of its own."""
    return each_on_its_own({name: partial(_try, tried=tried) for name, tried in TRIED.items()}, start)


def from_within(_vm: str, _level: str | None) -> list[Outcome]:
    """The host program does it, under ``exec``, in a VM of its own whose EPC the enclave exceeds."""

    def control() -> Attempts:
        evictor = str(_intruder.evictor_program())
        return [one for attempt in WITHIN for one in reported([evictor, "--plain", attempt], "evictor")]

    def enclave() -> tuple[str, Attempts]:
        with _machine() as vm:
            found = []
            for attempt in WITHIN:
                with tempfile.TemporaryDirectory(prefix="sr-attack-") as folder:
                    found += reported(_intruder.evictor(vm, Path(folder), attempt), "evictor")
            return "faithful (exec)", found

    return pair("evictor", control, enclave)


def evicted(_vm: str, level: str | None) -> list[Outcome]:
    """Evicted pages read, changed, swapped, replayed; in a VM of its own whose EPC the enclave exceeds."""

    def enclave() -> tuple[str, Attempts]:
        with _machine() as vm:
            return attempts(lambda: Inside(project("attacks/paged"), vm, level))

    return pair("evicted", lambda: attempts(lambda: Ordinary("spilling.py"))[1], enclave)
