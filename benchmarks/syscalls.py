"""A system call served inside, at a site that the builder rewrote to a call."""

from __future__ import annotations

import json

from benchmarks.figure import Figure, Scale, Side
from benchmarks.machine import BUILD, compile_all
from benchmarks.room import Room, outside

REPEATS = 5


def measure(room: Room, scale: Scale) -> list[Figure]:
    compile_all()
    program = BUILD / "syscalls"
    arguments = [str(scale.calls * 10), str(REPEATS)]
    manifest = f'[enclave]\nmain = "syscalls"\nmemory = "4M"\nargs = {json.dumps(arguments)}\n'
    project = room.image("syscalls", manifest, {"syscalls": program.read_bytes()})
    ours: list[float] = []
    base: list[float] = []
    for _ in range(max(1, scale.rounds // 4)):
        ours += [float(line) for line in room.inside(project, settle=scale.settle).out.split()]
        base += [float(line) for line in outside([str(program), *arguments], settle=scale.settle).out.split()]
    return [
        Figure(
            row="syscall",
            unit="ns",
            ours=Side("inside", tuple(ours)),
            base=Side("native", tuple(base)),
            kind="difference",
            most=200,
            limits="the LibOS's own path: registers saved, one lock, one table",
        )
    ]
