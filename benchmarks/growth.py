"""Cost against size: starts with more measured pages, and with more heap, on both generations."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, Scale, Side, interleave, slope
from benchmarks.machine import BUILD, compile_all
from benchmarks.room import VM1, VM2, Room

PAGES = 256  # a MiB
_SOURCE = r"""
#include <unistd.h>
__asm__(".text\n.balign 4096\n.fill %d, 1, 0xcc\n");
int main(void) { return write(1, "up\n", 3) != 3; }
"""


def _program(folder: Path, mib: int) -> bytes:
    """A static program with so many MiB of code that nobody runs."""
    target = folder / f"text-{mib}"
    subprocess.run(
        ["gcc", "-O1", "-static", "-x", "c", "-", "-o", str(target)],
        input=(_SOURCE % (mib << 20)).encode(), check=True, timeout=120,
    )  # fmt: skip
    return target.read_bytes()


def _image(room: Room, text: int, heap: int, edmm: bool = False) -> Path:
    manifest = f'[enclave]\nmain = "program"\nmemory = "{heap}M"\nthreads = 1\nedmm = {str(edmm).lower()}\n'
    return room.image(f"grow-{text}-{heap}-{edmm}", manifest, {"program": _program(room.folder, text)})


def _starts(room: Room, scale: Scale, vm: str, images: dict[int, Path]) -> dict[int, tuple[float, ...]]:
    """ms from the loader's first step to the program's first line, by size; the sizes take turns."""

    def once(project: Path) -> float:
        started = room.inside(project, vm, settle=0.05)
        return (started.first - started.steps()["started"]) * 1e3

    rounds = max(2, scale.rounds // 2)
    samples = interleave(rounds, *(lambda project=project: once(project) for project in images.values()))
    return dict(zip(images, samples, strict=True))


def _line(starts: dict[int, tuple[float, ...]]) -> tuple[float, float]:
    """µs for one more page, and R²."""
    points = [(float(mib * PAGES), median(values) * 1e3) for mib, values in starts.items()]
    return slope(points)


def measure(room: Room, scale: Scale) -> list[Figure]:
    compile_all()
    text = {mib: _image(room, mib, 4) for mib in scale.steps}
    heap = {4 + 2 * mib: _image(room, 0, 4 + 2 * mib) for mib in scale.steps}
    dynamic = {mib: _image(room, 0, mib, edmm=True) for mib in heap}
    measured = _starts(room, scale, VM2, text)
    lazily = _starts(room, scale, VM1, heap)
    lazily2 = _starts(room, scale, VM2, dynamic)
    page, straight = _line(measured)
    heap1, straight1 = _line(lazily)
    heap2, straight2 = _line(lazily2)
    fault = _fault(max(2, scale.rounds // 4))
    pictures = {
        "measured pages, SGX2 size": {mib: median(values) for mib, values in measured.items()},
        "heap, SGX1 size": {mib: median(values) for mib, values in lazily.items()},
        "heap, SGX2 size (edmm)": {mib: median(values) for mib, values in lazily2.items()},
    }
    return [
        Figure(
            "growth-measured", "µs a page", Side("heap page, SGX2 size", (max(0.0, heap2),)),
            Side("measured page, SGX2 size", (page,)), "ratio", 0.1,
            limits="the tables that go with a larger heap",
            note=f"R² of the start over measured pages: {straight:.4f}; edmm = true: the heap is no part of it",
            extra={"r2": straight, "r2_heap": straight2, "pictures": pictures},
        ),
        Figure(
            "growth-heap", "µs a page", Side("heap page, SGX1 size", (max(0.0, heap1),)),
            Side("first touch of a page of its memory", fault), "ratio", 0.1,
            limits="EADD's record (64 bytes) is hashed, the page looked at and entered in the EPCM",
            note=f"R² of the start over heap pages: {straight1:.4f}; no page of the heap is touched before it is used",
            extra={"r2": straight1},
        ),
    ]  # fmt: skip


def _fault(rounds: int) -> tuple[float, ...]:
    """µs of the first touch of a page of memory as enclaves have it here (secret memory where there is any)."""
    return tuple(
        float(subprocess.run([BUILD / "touch", "2048"], capture_output=True, check=True, timeout=60).stdout)
        for _ in range(rounds)
    )
