"""From the request at the daemon to the first line of a Python enclave that imports `cryptography`."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.figure import Figure, Scale, Side, interleave
from benchmarks.room import HERE, VM1, Room, Started, interpreter, outside

MANIFEST = '[enclave]\nmain = "main.py"\npackages = ["cryptography"]\nmemory = "48M"\nthreads = 4\n'


def image(room: Room) -> Path:
    source = HERE / "projects" / "start" / "main.py"
    return room.image("start", MANIFEST, {"main.py": source.read_text()})


def steps(started: Started) -> list[tuple[str, float]]:
    """Where the milliseconds of one start went. Names are the profile's, in order."""
    loader = started.steps()
    _, begin, end = (int(word) for word in started.out.split())
    marks = [
        ("request accepted (daemon)", started.ready),
        ("loader at work (process, VM's view, library injected)", loader["started"]),
        ("enclave created", loader["created"]),
        ("pages added, measured behind it", loader["added"]),
        ("pages mapped", loader["mapped"]),
        ("threads and arguments", loader["prepared"]),
        ("EINIT (the rest of the measurement, package)", loader["initialised"]),
        ("LibOS and interpreter, to the program's first statement", begin / 1e9),
        ("`import cryptography`", end / 1e9),
        ("first line out", started.first),
    ]
    before = started.request
    found = []
    for name, at in marks:
        found.append((name, (at - before) * 1e3))
        before = at
    return found


def measure(room: Room, scale: Scale) -> list[Figure]:
    project = image(room)
    profiles: list[list[tuple[str, float]]] = []

    def ours() -> float:
        started = room.inside(project, VM1, settle=scale.settle)
        profiles.append(steps(started))
        return (started.first - started.request) * 1e3

    def base() -> float:
        started = outside([interpreter(), str(project / "main.py")], settle=scale.settle)
        return (started.first - started.request) * 1e3

    inside, plain = interleave(scale.rounds, ours, base)
    names = [name for name, _ in profiles[0]]
    kept = profiles[2:]
    profile = tuple(
        (name, statistics.median(one[place][1] for one in kept)) for place, name in enumerate(names)
    )
    largest = sorted(profile, key=lambda step: -step[1])[:3]
    return [
        Figure(
            row="start",
            unit="ms",
            ours=Side("enclave", inside),
            base=Side("interpreter", plain),
            kind="ratio",
            most=2.5,
            limits="the largest steps: " + ", ".join(f"{name} {value:.1f} ms" for name, value in largest),
            profile=profile,
        )
    ]
