"""The attacks on evicted pages, against enclaves larger than their VM's EPC.

attacks/evicted.py, step by step, is another process; attacks/evictor.c is the host program itself.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from strongroom.cli import _intruder
from strongroom.cli._attack import (
    GOT,
    MET,
    NOT_TRIED,
    REFUSED,
    Inside,
    Ordinary,
    Outcome,
    pair,
    program,
    reported,
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
Attempts = list[dict[str, str]]
Started = Callable[[], contextlib.AbstractContextManager[Ordinary | Inside]]


@contextlib.contextmanager
def _machine() -> Iterator[str]:
    """A VM of its own, gone afterwards."""
    name, ours = f"attack-{secrets.token_hex(4)}", machines()
    ours.create(name, SIZE)
    try:
        yield name
    finally:
        ours.delete(name, force=True)


def _look(target: Ordinary | Inside, step: Callable[..., dict[str, str]]) -> dict[str, str]:
    seed = secrets.token_bytes(16)
    target.ask("fill", seed)
    return step("look", seed)


def _changed(target: Ordinary | Inside, step: Callable[..., dict[str, str]], do: str) -> dict[str, str]:
    seed = secrets.token_bytes(16)
    target.ask("fill", seed)
    return _then(target, step(do), seed, "{wrong} of its records were taken for its own")


def _older(target: Ordinary | Inside, step: Callable[..., dict[str, str]], *, same: bool) -> dict[str, str]:
    """Pages are evicted, come in, are written (the same or anew) and evicted again; the first copy is put back."""
    seed = secrets.token_bytes(16)
    target.ask("fill", seed)
    first = step("keep")
    if first["result"] != GOT:
        return first
    newer = seed if same else secrets.token_bytes(16)
    target.ask("fill", newer)
    believed = "its pages of before were taken for the ones of now"
    return _then(
        target,
        step("put"),
        newer,
        believed if same else "{wrong} records of before were taken for those of now",
    )


def _then(target: Ordinary | Inside, done: dict[str, str], seed: bytes, believed: str) -> dict[str, str]:
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


TRIED: dict[str, Callable[[Ordinary | Inside, Callable[..., dict[str, str]]], dict[str, str]]] = {
    "evicted pages, searched for what was written": _look,
    "evicted pages changed by a bit": lambda target, step: _changed(target, step, "flip"),
    "evicted pages swapped": lambda target, step: _changed(target, step, "swap"),
    "evicted pages replayed: older content": lambda target, step: _older(target, step, same=False),
    "a page evicted twice: its first copy, of the same content": lambda target, step: _older(
        target, step, same=True
    ),
}


def attempts(start: Started) -> Attempts:
    """Each attempt, on a target of its own."""
    found = []
    for name, tried in TRIED.items():
        with start() as target, tempfile.TemporaryDirectory(prefix="sr-attack-") as scratch:
            place = int(target.ask("place", b""))

            def step(
                do: str,
                seed: bytes = b"",
                target: Ordinary | Inside = target,
                place: int = place,
                scratch: str = scratch,
            ) -> dict[str, str]:
                words = ["--pid", str(target.pid), "--place", str(place), "--elrange", str(target.elrange)]
                (one,) = program(
                    ["evicted.py", *words, "--scratch", scratch, "--seed", seed.hex(), "--do", do]
                )
                return one

            found.append({**tried(target, step), "name": name})
    return found


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
            levels: list[str] = []

            @contextlib.contextmanager
            def start() -> Iterator[Inside]:
                with Inside(project("attacks/paged"), vm, level) as target:
                    levels.append(target.level)
                    yield target

            found = attempts(start)
            return levels[0], found

    return pair("evicted", lambda: attempts(lambda: Ordinary("spilling.py")), enclave)
