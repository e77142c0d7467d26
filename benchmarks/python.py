"""Compute-bound and allocation-heavy Python, inside against outside: the same file, the same interpreter."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.figure import Figure, Scale, Side
from benchmarks.room import HERE, Room, interpreter, outside

REPEATS = 5
"""Of the work in one process."""


def _image(room: Room, work: str, weight: int, repeats: int) -> Path:
    source = (HERE / "projects" / "python" / "main.py").read_text()
    arguments = json.dumps([work, str(weight), str(repeats)])
    manifest = f'[enclave]\nmain = "main.py"\nmemory = "48M"\nargs = {arguments}\n'
    return room.image(work, manifest, {"main.py": source})


def _figure(room: Room, scale: Scale, work: str, most: float, limits: str) -> Figure:
    repeats = min(REPEATS, scale.rounds)
    project = _image(room, work, scale.weight, repeats)
    ours: list[float] = []
    base: list[float] = []
    for turn in range(max(1, scale.rounds // 4)):
        for inside in (True, False) if turn % 2 else (False, True):
            if inside:
                ours += json.loads(room.inside(project, settle=scale.settle).out)
            else:
                command = [interpreter(), str(project / "main.py"), work, str(scale.weight), str(repeats)]
                base += json.loads(outside(command, settle=scale.settle).out)
    return Figure(
        row=work,
        unit="ms",
        ours=Side("inside", tuple(1e3 * one for one in ours)),
        base=Side("outside", tuple(1e3 * one for one in base)),
        kind="ratio",
        most=most,
        limits=limits,
    )


def measure(room: Room, scale: Scale) -> list[Figure]:
    return [
        _figure(room, scale, "compute", 1.1, "the memory's first touch and its page tables (4 KiB pages)"),
        _figure(room, scale, "allocation", 1.5,
                "first touches of secret memory, and memory that is cleared by hand when it is given back"),
    ]  # fmt: skip
