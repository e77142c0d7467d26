"""`strongroom measure` against plain SHA-256 over the bytes that a measurement hashes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure, Scale, Side, interleave
from benchmarks.room import Room
from benchmarks.start import image
from strongroom.image.measure import STREAM_NAME
from strongroom.image.measure import measure as measure_file

_RECORD, _CHUNK = 64, 256


def _hashed(stream: bytes) -> Iterator[bytes]:
    """The records of an SGXS stream that are measured: all but what UNMEASRD brings."""
    at = 0
    while at < len(stream):
        size = _RECORD + (_CHUNK if stream[at : at + 7] in (b"EEXTEND", b"UNMEASR") else 0)
        if stream[at : at + 8] != b"UNMEASRD":
            yield stream[at : at + size]
        at += size


def measure(room: Room, scale: Scale) -> list[Figure]:
    path: Path = image(room) / "build" / STREAM_NAME
    data = b"".join(_hashed(path.read_bytes()))
    pages = measure_file(path).measured_pages

    def ours() -> float:
        begin = time.perf_counter()
        measure_file(path)
        return (time.perf_counter() - begin) * 1e3

    def base() -> float:
        begin = time.perf_counter()
        hashlib.sha256(data).digest()
        return (time.perf_counter() - begin) * 1e3

    tool, plain = interleave(scale.rounds, ours, base)
    return [
        Figure(
            row="measuring-tool",
            unit="ms",
            ours=Side("strongroom measure", tool),
            base=Side("SHA-256", plain),
            kind="ratio",
            most=1.3,
            limits="every record's header is checked in Python, beside a thread that hashes: without a processor of "
            "its own that adds up",
            note=f"{pages:,} measured pages, {len(data) / 2**20:.1f} MiB hashed",
        )
    ]
