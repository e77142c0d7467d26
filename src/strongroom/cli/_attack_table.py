"""The table of attacks: each attempt at the plain process and at every level that this machine gives."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from strongroom.cli._attack import (
    run_all,
)
from strongroom.cli._attack_outcomes import (
    NOT_TRIED,
    Outcome,
    as_promised,
)
from strongroom.machine import level as levels

COLUMNS = ("plain", "faithful", "separated", "sealed")
_EXEC = "faithful (exec)"
_HEAD = """\
# Attacks

What `strongroom attack --all --table --write docs/attacks.md` found; do not edit. Each attempt is a program under
`attacks/` that was run against an ordinary Python process as the control, where it has to succeed, and against an
enclave at each level. *got*: the attempt obtained something, and the line says what. *refused*: the machine said no.
*met*: it was tried and nothing was had. *not tried*: no attempt was made, and the line says why. What software cannot
keep out is said as plainly: the kernel's own tracing, and the fuses on the disk.
"""


def collect(vm: str, only: list[str], *, every: bool, progress: bool) -> list[Outcome]:
    """Run the attacks at each level; those from within a host program once, for ``exec`` has one level."""
    from strongroom.cli._attack_more import WITHIN

    order = [levels.Level.SEALED, levels.Level.SEPARATED, levels.Level.FAITHFUL]
    possible = order[order.index(levels.best(levels.find_facts())) :]
    outcomes: list[Outcome] = []
    for number, level in enumerate(possible):
        skip = WITHIN if number else frozenset()
        outcomes += run_all(vm, str(level), only, progress=progress, every=every, skip=skip)
    return outcomes


def rows(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """One row an attempt, in the order of the attacks: {attack, attempt, plain, faithful, …: {result, text}}."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in outcomes:
        row = found.setdefault((one.attack, one.attempt), {"attack": one.attack, "attempt": one.attempt})
        beside = {"result": one.control_result, "text": one.control_text}
        if "plain" not in row or row["plain"]["result"] == NOT_TRIED:
            row["plain"] = beside
        column = "faithful" if one.level == _EXEC else one.level
        row["exec"] = one.level == _EXEC
        row.setdefault(column, {"result": one.result, "text": one.text})
    attacks = list(dict.fromkeys(one.attack for one in outcomes))
    return sorted(found.values(), key=lambda row: attacks.index(row["attack"]))


def to_plain(outcomes: list[Outcome]) -> dict[str, Any]:
    """For --json."""
    return {"machine": machine(), "as_promised": as_promised(outcomes), "attempts": rows(outcomes)}


def machine() -> dict[str, str]:
    """What the outcomes hang on."""
    return {
        "kernel": platform.release(),
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
        "best_level": str(levels.best(levels.find_facts())),
    }


def _cell(row: dict[str, Any], column: str) -> str:
    if column in row:
        return str(row[column]["result"])
    return "as faithful" if row["exec"] else "–"


def _words(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def page(outcomes: list[Outcome]) -> str:
    """docs/attacks.md."""
    facts = machine()
    found = rows(outcomes)
    lines = [_HEAD, f"Kernel {facts['kernel']}, run by {facts['user']}. Attacks from within a host program run under "
             "`strongroom exec`, which is *faithful* by nature.\n",
             "| attack | attempt | plain process | faithful | separated | sealed |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    lines += [
        f"| {row['attack']} | {_words(row['attempt'])} | "
        + " | ".join(_cell(row, column) for column in COLUMNS)
        + " |"
        for row in found
    ]
    lines.append("\n## What each attempt said")
    attack = ""
    for row in found:
        if row["attack"] != attack:
            attack = row["attack"]
            lines.append(f"\n### {attack}\n")
        lines.append(f"- {row['attempt']}")
        lines += [
            f"  - {column}{' process' if column == 'plain' else ''}: *{row[column]['result']}*, {row[column]['text']}"
            for column in COLUMNS
            if column in row
        ]
    return "\n".join(lines) + "\n"


def write(file: Path, text: str) -> None:
    """Replace ``file`` whole."""
    with tempfile.NamedTemporaryFile(
        "w", dir=file.parent, prefix=".new-", delete=False, encoding="utf-8"
    ) as new:
        new.write(text)
    os.chmod(new.name, 0o644)
    os.replace(new.name, file)


def show(outcomes: list[Outcome]) -> None:
    """The table for people."""
    from rich.table import Table

    from strongroom.cli._output import console

    table = Table(box=None, pad_edge=False)
    for head in ("attack", "attempt", "plain", "faithful", "separated", "sealed"):
        table.add_column(head, overflow="fold")
    for row in rows(outcomes):
        table.add_row(row["attack"], row["attempt"], *(_cell(row, column) for column in COLUMNS))
    console().print(table)
