"""What a benchmark gives: two sides measured alternately in one run, and the goal they are held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Scale:
    """How long a benchmark works. ``TINY`` only shows that it runs: its figures say nothing."""

    rounds: int
    calls: int
    """Of what is called in a loop."""
    weight: int
    """Of Python programs: how much work one of their rounds is."""
    steps: tuple[int, ...]
    """MiB in the pictures of cost against size."""
    settle: float
    """Seconds before each process of a comparison, on both sides: a VM makes loaders and secret memory ready anew for
    some 100 ms after a run, which what comes at once would pay for."""


FULL = Scale(rounds=21, calls=20_000, weight=20, steps=(0, 8, 16, 32), settle=0.4)
TINY = Scale(rounds=2, calls=50, weight=1, steps=(0, 1), settle=0.0)


@dataclass(frozen=True)
class Side:
    """One side's samples, all in the figure's unit."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest decile (the least, of few samples)."""
        return sorted(self.values)[len(self.values) // 10]

    @property
    def high(self) -> float:
        """The highest decile."""
        return sorted(self.values)[-1 - len(self.values) // 10]

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "median": self.median, "low": self.low, "high": self.high,
                "samples": len(self.values)}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``kind``: what the goal is about; ``most`` is the goal."""

    row: str
    unit: str
    ours: Side | None
    base: Side | None
    kind: Literal["ratio", "difference", "value"]
    most: float
    limits: str = ""
    """What limits it, for the reader of a figure that misses."""
    note: str = ""
    not_measured: str = ""
    elsewhere: str = ""
    """Where the goal applies, which is not here: the figure is printed and not judged."""
    profile: tuple[tuple[str, float], ...] = ()
    """Where ``ours`` goes, in the figure's unit."""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """What is compared with the goal; None where it was not measured."""
        if self.ours is None or (self.base is None and self.kind != "value"):
            return None
        if self.kind == "value":
            return self.ours.median
        assert self.base is not None
        if self.kind == "difference":
            return self.ours.median - self.base.median
        return self.ours.median / self.base.median

    @property
    def met(self) -> bool | None:
        return None if self.value is None or self.elsewhere else self.value <= self.most

    def facts(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "row": self.row,
            "unit": self.unit,
            "ours": self.ours and self.ours.facts(),
            "base": self.base and self.base.facts(),
            "kind": self.kind,
            "value": self.value,
            "goal": self.most,
            "met": self.met,
            "goal_applies": self.elsewhere or "here",
            "limits": self.limits,
            "note": self.note,
            "not_measured": self.not_measured,
            "profile": [{"step": step, "value": value} for step, value in self.profile],
            **self.extra,
        }


def interleave(rounds: int, *sides: Callable[[], float]) -> list[tuple[float, ...]]:
    """Call the sides in turn, ``rounds`` times, the order turned round each time; each side's samples.

    Two first rounds are thrown away: they fill caches, and warm the VM.
    """
    samples: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 2):
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        for place in order:
            value = sides[place]()
            if number > 1:
                samples[place].append(value)
    return [tuple(one) for one in samples]


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: cost of one more unit, and R² (1: a straight line)."""
    xs, ys = zip(*points, strict=True)
    line = statistics.linear_regression(xs, ys)
    spread = statistics.pvariance(ys)
    rest = statistics.fmean((y - line.slope * x - line.intercept) ** 2 for x, y in points)
    return line.slope, 1.0 if not spread else 1 - rest / spread
