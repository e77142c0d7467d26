"""The table for people, JSON for programs, and docs/benchmarks.md with its pictures."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, Side
from benchmarks.rows import ROWS

BEGIN, END = "<!-- made by `make bench` -->", "<!-- end -->"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _side(side: Side | None, unit: str) -> str:
    if side is None:
        return "—"
    spread = f" ({_number(side.low)}–{_number(side.high)})" if len(side.values) > 1 else ""
    return f"{_number(side.median)}{spread} {unit}"


def _value(figure: Figure) -> str:
    if figure.value is None:
        return "not measured"
    return f"{figure.value:.2f}×" if figure.kind == "ratio" else f"{_number(figure.value)} {figure.unit}"


def _goal(figure: Figure) -> str:
    if not figure.most:
        return "—"
    goal = f"≤ {figure.most:g}×" if figure.kind == "ratio" else f"≤ {_number(figure.most)} {figure.unit}"
    return f"{goal} {figure.elsewhere}".rstrip()


def _result(figure: Figure) -> str:
    if figure.elsewhere and figure.value is not None:
        return "no goal here"
    return {True: "met", False: "missed", None: "not measured"}[figure.met]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "hypervisor": " hypervisor " in Path("/proc/cpuinfo").read_text(),
    }


def busy(facts: dict[str, Any]) -> str:
    """Whether others worked on this machine meanwhile: then the figures are higher, and their ratios less sharp."""
    return "others worked on the machine too" if facts["load"] > facts["cpus"] else "the machine was ours"


def complete(figures: list[Figure]) -> dict[str, Figure]:
    """Every row of the design's table, once, in its order. Raises ValueError for one that is missing."""
    by_row = {figure.row: figure for figure in figures}
    missing = [row for row in ROWS if row not in by_row]
    if missing or len(by_row) != len(figures) or set(by_row) - set(ROWS):
        raise ValueError(f"the table is not whole: {missing or [figure.row for figure in figures]}")
    return {row: by_row[row] for row in ROWS}


def markdown(figures: list[Figure], level: str) -> str:
    """The table and what stands under it."""
    facts = machine()
    where = "in a virtual machine" if facts["hypervisor"] else "on bare metal"
    lines = [
        f"Measured {where}: {facts['processor']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, Python "
        f"{facts['python']}, level {level}.",
        "Medians; in brackets the lowest and the highest decile. The two sides took turns in one run. "
        f"Load average at its end: {facts['load']} ({busy(facts)}).",
        "",
        "| figure | ours | beside it | result | goal | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    whole = complete(figures)
    for row, figure in whole.items():
        ours, base = _side(figure.ours, figure.unit), _side(figure.base, figure.unit)
        lines.append(
            f"| {ROWS[row]} | {ours} | {base} | {_value(figure)} | {_goal(figure)} | {_result(figure)} |"
        )
    lines += [""]
    for row, figure in whole.items():
        told = [text for text in (figure.not_measured, figure.note) if text]
        if figure.met is False:
            told.append(f"Limited by: {figure.limits}.")
        if told:
            lines.append(f"- **{row}**: {'. '.join(told)}")
    for row, figure in whole.items():
        if figure.profile:
            total = sum(value for _, value in figure.profile)
            lines += [
                "",
                f"Where the {_number(total)} {figure.unit} of `{row}` go (medians of each step):",
                "",
            ]
            lines += ["| step | " + figure.unit + " |", "| --- | --- |"]
            lines += [f"| {step} | {value:.1f} |" for step, value in figure.profile]
    return "\n".join(lines) + "\n"


def text(figures: list[Figure], level: str) -> str:
    """The table for a terminal."""
    lines = []
    for row, figure in complete(figures).items():
        mark = {True: "✔", False: "✘", None: "–"}[figure.met]
        ours, base = _side(figure.ours, figure.unit), _side(figure.base, figure.unit)
        lines.append(f"{mark} {row:<20} {_value(figure):>14}  goal {_goal(figure):<14} {ours}  |  {base}")
        for told in (figure.not_measured, figure.note):
            if told:
                lines.append(f"    {told}")
        if figure.met is False:
            lines.append(f"    limited by: {figure.limits}")
        lines += [f"    {value:9.2f} {figure.unit}  {step}" for step, value in figure.profile]
    return f"level {level}\n" + "\n".join(lines)


def write(page: Path, table: str) -> None:
    """Put ``table`` between the marks of ``page``."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table}{END}{after}", encoding="utf-8")
