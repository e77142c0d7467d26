"""The verdicts in words: a line, JSON, the page docs/conformance.md."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from typing import Any

from conformance.compare import Verdict, reasons
from conformance.reasons import reason_of

HEAD = """# Conformance: CPython's own tests, inside and outside

Made by `make conformance` ({python}, {cpus} processors, Linux {kernel}, as {user}). Each module of the interpreter's
own `test` package runs in a fresh enclave and in a fresh ordinary process of the same interpreter (`-u none`: nothing
that needs much disk, processor, sound or the Internet), and each case's outcome inside is compared with the one
outside.

**{alike} of {total} modules behave as outside.** {cases} cases: {same} alike ({skipped} of them skipped on both
sides), {aside} set aside, {differ} differ.

*Set aside*, by a rule and not by hand: a case that differs, and during which the LibOS said on standard error that it
refused to make another process (`strongroom: fork refused, asked for by ...`, likewise vfork and execve): an enclave
cannot be copied. A class or module whose set-up was refused so takes its cases along. They are listed at the end.

On both sides: the optional `numpy` is not there, VSOCK is not tried (connecting to one's own address waits for ever on
some virtual machines), the right to set the machine's clock is given up. A case that waits longer than 90 s is ended.
The enclave has `late_code = "4M"`: ctypes' callbacks are code made at run time.
"""


def line(verdict: Verdict) -> str:
    state = "as outside" if verdict.as_outside else f"{len(verdict.differ)} differ"
    aside = f", {len(verdict.aside)} set aside" if verdict.aside else ""
    note = f"; {verdict.note}" if verdict.note else ""
    return f"{verdict.name}: {state}, {verdict.alike} of {verdict.total} alike{aside}{note}"


def as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name, "as_outside": verdict.as_outside, "cases": verdict.total, "alike": verdict.alike,
        "skipped": verdict.skipped, "set_aside": verdict.aside, "differ": verdict.differ, "note": verdict.note,
        "reasons": reasons(verdict.differ.values()),
    }  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _differences(verdict: Verdict) -> list[str]:
    """One line a reason, with the number of its cases; what has none, case by case."""
    known: Counter[str] = Counter()
    lines = []
    for case, (outside, inside, why) in verdict.differ.items():
        reason = reason_of(verdict.name, case)
        if reason:
            known[reason] += 1
        else:
            short = case.removeprefix(f"test.{verdict.name}.")
            lines.append(f"- `{verdict.name}`: `{short}`: {outside} outside, {inside} inside: `{_cell(why)}`")
    if verdict.note:
        lines.append(f"- `{verdict.name}`: {_cell(verdict.note)}")
    return [f"- `{verdict.name}`, {count} cases: {reason}" for reason, count in known.items()] + lines


def _table(verdicts: list[Verdict]) -> list[str]:
    rows = ["| module | cases | alike | set aside | differ | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for one in verdicts:
        state = "as outside" if one.as_outside else "differs"
        if one.as_outside and not one.total:
            state = "as outside (skipped whole on both sides)"
        rows.append(
            f"| {one.name} | {one.total} | {one.alike} | {len(one.aside)} | {len(one.differ)} | {state} |"
        )
    return rows


def page(verdicts: list[Verdict], python: str) -> str:
    """docs/conformance.md."""
    import os

    modules = [one for one in verdicts if not one.name.startswith("numpy/")]
    numpy = [one for one in verdicts if one.name.startswith("numpy/")]
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    text = HEAD.format(
        python=version.replace("Python", "CPython"), cpus=os.cpu_count(), kernel=platform.release(),
        user="root" if os.geteuid() == 0 else "an ordinary user", alike=sum(one.as_outside for one in modules),
        total=len(modules), cases=sum(one.total for one in modules), same=sum(one.alike for one in modules),
        skipped=sum(one.skipped for one in modules), aside=sum(len(one.aside) for one in modules),
        differ=sum(len(one.differ) for one in modules),
    )  # fmt: skip
    parts = [text, *_table(modules), "", "## What differs, and why", ""]
    parts += [part for one in modules for part in _differences(one)] or ["Nothing."]
    if numpy:
        parts += [
            "", "## numpy", "",
            "numpy's own core tests by pytest, every fifth case in the order of collection, inside and outside.", "",
            *_table(numpy), "", *[part for one in numpy for part in _differences(one)],
        ]  # fmt: skip
    parts += ["", "## Set aside", ""]
    for one in verdicts:
        if one.aside:
            names = ", ".join(f"`{case.removeprefix(f'test.{one.name}.')}`" for case in one.aside)
            parts.append(f"- `{one.name}` ({len(one.aside)}): {names}")
    return "\n".join(parts).rstrip() + "\n"
