"""What came of an attack: the report of a program under ``attacks/``, set beside the control's, and judged.

An attack that the control withstands proves nothing about the enclave: its attempts are then "not tried".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from strongroom.cli._projects import shipped
from strongroom.errors import StrongroomError

GOT, REFUSED, MET, NOT_TRIED = "got", "refused", "met", "not tried"
ATTACK_SECONDS = 150

Attempts = list[dict[str, str]]
"""What came of each attempt: "name", "result", "text"."""


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
