"""The attack on code made at run time: attacks/late_code.py, against an enclave whose manifest has late_code."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from functools import partial

from strongroom.cli._attack_outcomes import (
    GOT,
    MET,
    REFUSED,
    Attempts,
    Outcome,
    pair,
    program,
)
from strongroom.cli._attack_targets import (
    Inside,
    Ordinary,
    Target,
    each_on_its_own,
)
from strongroom.cli._projects import project
from strongroom.errors import StrongroomError

# What is tried: what the target does first, and what the attacker does then.
TRIED = {
    "code made inside, not run yet: read": ("write", "look"),
    "code made inside, not run yet: changed": ("write", "change"),
    "code made inside and run: read": ("ran", "look"),
    "code made inside and run: changed": ("ran", "change"),
    "code written and run in quick turns: changed": ("turns", "change"),
}


def _attempt(target: Target, verb: str, do: str) -> dict[str, str]:
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


def attempts(start: Callable[[], Target]) -> tuple[str, Attempts]:
    """Each attempt, on a target of its own."""
    tried = {name: partial(_attempt, verb=verb, do=do) for name, (verb, do) in TRIED.items()}
    return each_on_its_own(tried, start)


def late(vm: str, level: str | None) -> list[Outcome]:
    """Code made at run time, read and changed."""
    return pair(
        "late",
        lambda: attempts(lambda: Ordinary("writer.py"))[1],
        lambda: attempts(lambda: Inside(project("attacks/late"), vm, level)),
    )
