"""One page evicted and reloaded in place."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figure import Figure, Scale


def measure(_folder: Path, _scale: Scale) -> list[Figure]:
    return [
        Figure(
            row="paging",
            unit="ns",
            ours=None,
            base=None,
            kind="value",
            most=0,
            not_measured="no paging on this build: over quota is ENOMEM",
        )
    ]
