"""The attack on code made at run time: attacks/late_code.py, against an enclave whose manifest has late_code."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator

from strongroom.cli._attack import GOT, MET, REFUSED, Inside, Ordinary, Outcome, pair, program
from strongroom.cli._projects import project
from strongroom.errors import StrongroomError

Attempts = list[dict[str, str]]
Started = Callable[[], contextlib.AbstractContextManager[Ordinary | Inside]]
# What is tried: what the target does first, and what the attacker does then.
TRIED = {
    "code made inside, not run yet: read": ("write", "look"),
    "code made inside, not run yet: changed": ("write", "change"),
    "code made inside and run: read": ("ran", "look"),
    "code made inside and run: changed": ("ran", "change"),
    "code written and run in quick turns: changed": ("turns", "change"),
}


def _attempt(target: Ordinary | Inside, verb: str, do: str) -> dict[str, str]:
    seed = secrets.token_bytes(16)
    word = hashlib.sha256(b"strongroom attack late code" + seed).digest()[:8]
    place = target.ask("place", b"").decode()
    target.ask(verb, seed)
    (one,) = program(
        ["late_code.py", "--pid", str(target.pid), "--place", place, "--word", word.hex(), "--do", do]
    )
    if do == "look":
        return one
    try:
        gives = target.ask("run", b"").decode()
    except StrongroomError as error:
        return {"result": REFUSED, "text": f"{one['text']}; the enclave refuses every call: {error}"}
    if gives != word.hex():
        return {"result": GOT, "text": f"{one['text']}, and the code gives another number"}
    kept = REFUSED if one["result"] == REFUSED else MET
    return {"result": kept, "text": f"{one['text']}; the code gives its number"}


def attempts(start: Started) -> Attempts:
    """Each attempt, on a target of its own."""
    found = []
    for name, (verb, do) in TRIED.items():
        with start() as target:
            found.append({**_attempt(target, verb, do), "name": name})
    return found


def late(vm: str, level: str | None) -> list[Outcome]:
    """Code made at run time, read and changed."""

    def enclave() -> tuple[str, Attempts]:
        levels: list[str] = []

        @contextlib.contextmanager
        def start() -> Iterator[Inside]:
            with Inside(project("attacks/late"), vm, level) as target:
                levels.append(target.level)
                yield target

        found = attempts(start)
        return levels[0], found

    return pair("late", lambda: attempts(lambda: Ordinary("writer.py")), enclave)
