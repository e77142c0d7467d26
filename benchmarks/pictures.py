"""Cost against size, as pictures in the documentation (pygal: a development dependency)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pygal
from pygal.style import CleanStyle

from benchmarks.figure import Figure


def _chart(title: str, x: str, y: str, lines: Mapping[str, Mapping[int, float]]) -> bytes:
    chart = pygal.XY(
        title=title, x_title=x, y_title=y, width=760, height=420, legend_at_bottom=True, show_dots=True,
        style=CleanStyle(background="#ffffff", plot_background="#ffffff"), js=(), range=None,
        include_x_axis=True, explicit_size=True,
    )  # fmt: skip
    for name, points in lines.items():
        chart.add(name, [(size, value) for size, value in sorted(points.items())])
    picture: bytes = chart.render()
    return picture


def draw(figures: list[Figure], folder: Path) -> list[Path]:
    """Write the pictures whose points were measured; returns their paths."""
    made = []
    for figure in figures:
        if figure.row == "growth-measured" and figure.ours is not None:
            path = folder / "benchmarks-start.svg"
            path.write_bytes(
                _chart("Start of an enclave against its size", "MiB", "ms from the loader to the first line",
                       figure.extra["pictures"])
            )  # fmt: skip
            made.append(path)
        if figure.row == "paging" and figure.extra.get("pictures"):
            path = folder / "benchmarks-paging.svg"
            path.write_bytes(
                _chart("Run against EPC pressure", "working set, % of the EPC", "times the run that fits",
                       figure.extra["pictures"])
            )  # fmt: skip
            made.append(path)
    return made
