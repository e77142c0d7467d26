"""``python -m benchmarks [--json] [--docs] [--tiny] [FAMILY…]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import growth, machine, measuring, paging, python, quotes, start, syscalls
from benchmarks.figure import FULL, TINY, Figure, Scale
from benchmarks.report import complete, markdown, text, write
from benchmarks.report import machine as facts_of_machine
from benchmarks.room import REPOSITORY, Room, room
from benchmarks.rows import ROWS

FAMILIES: dict[str, Callable[[Room, Scale], list[Figure]]] = {
    "start": start.measure,
    "python": python.measure,
    "syscalls": syscalls.measure,
    "machine": lambda place, scale: machine.measure(place.folder, scale),
    "paging": lambda place, scale: paging.measure(place.folder, scale),
    "measuring": measuring.measure,
    "quotes": lambda place, scale: quotes.measure(place.folder, scale),
    "growth": growth.measure,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its pictures")
    parser.add_argument("--tiny", action="store_true", help="only show that each benchmark runs")
    parser.add_argument("family", nargs="*", choices=[*FAMILIES, []], help="these and no others")
    words = parser.parse_args(argv)
    scale = TINY if words.tiny else FULL
    figures: list[Figure] = []
    with room() as place:
        for name in words.family or FAMILIES:
            print(f"{name} …", file=sys.stderr, flush=True)
            figures += FAMILIES[name](place, scale)
        level = place.level
    if not words.family:
        figures = list(complete(figures).values())
    if words.json:
        found = {"machine": facts_of_machine(), "level": level, "figures": [one.facts() for one in figures]}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif words.family:
        rest = [Figure(row, "", None, None, "value", 0, not_measured="not asked for") for row in ROWS]
        have = {figure.row for figure in figures}
        print(text([*figures, *(one for one in rest if one.row not in have)], level))
    else:
        print(text(figures, level))
    if words.docs:
        from benchmarks.pictures import draw

        docs: Path = REPOSITORY / "docs"
        write(docs / "benchmarks.md", markdown(figures, level))
        for path in draw(figures, docs):
            print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
