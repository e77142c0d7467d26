"""One module's lines, inside beside outside: which cases behave alike, which are set aside, which differ.

Set aside is mechanical: a case that differs, and during which the LibOS said that it refused to make or become another
process. Its line stands between the case's start and its stop; so does that of a class's or module's set-up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

SEPARATOR = "\x1e"
REFUSED = re.compile(r"^strongroom: (?:fork|vfork|execve|execveat) refused", re.MULTILINE)


@dataclass
class Case:
    outcome: str
    why: str
    refused: bool  # the LibOS refused a new process meanwhile


@dataclass
class Run:
    """One module in one place. ``module``: done, skip, bad, or what stopped it."""

    module: str = "stopped"
    why: str = ""
    seconds: float = 0.0
    cases: dict[str, Case] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> Run:
        run = cls()
        refused = False
        for line in text.split("\n"):  # splitlines() would split at U+001E
            if REFUSED.search(line):
                refused = True
            if not line.startswith(SEPARATOR):
                continue
            try:
                one = json.loads(line[1:])
            except ValueError:
                continue
            if "start" in one:
                run.open.append(one["start"])
                refused = False
            elif "stop" in one:
                if one["stop"] in run.open:
                    run.open.remove(one["stop"])
                run.add(one["stop"], Case(one["outcome"], one["why"], refused))
                refused = False
            elif "module" in one:
                run.module, run.why = one["module"], one["why"]
        return run

    def add(self, name: str, case: Case) -> None:
        while name in self.cases:  # the same method by two classes of one name
            name += "′"
        self.cases[name] = case

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        cases = {name: Case(**case) for name, case in data.pop("cases").items()}
        return cls(**data, cases=cases)


@dataclass
class Verdict:
    name: str
    total: int = 0
    alike: int = 0
    skipped: int = 0  # of the alike ones
    aside: list[str] = field(default_factory=list)
    differ: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # id -> outside, inside, why
    note: str = ""

    @property
    def as_outside(self) -> bool:
        return not self.differ and not self.note


_SETUP = re.compile(r"^(?:setUpClass|tearDownClass|setUpModule|tearDownModule) \((.+)\)$")


def compare(name: str, outside: Run, inside: Run) -> Verdict:
    verdict = Verdict(name)
    # What a refused set-up took along.
    gone = [match[1] for one, case in inside.cases.items() if case.refused and (match := _SETUP.match(one))]
    for one in dict.fromkeys([*outside.cases, *inside.cases]):
        verdict.total += 1
        there, here = outside.cases.get(one), inside.cases.get(one)
        if there and here and there.outcome == here.outcome:
            verdict.alike += 1
            verdict.skipped += here.outcome == "skip"
        elif (here and here.refused) or (here is None and any(one.startswith(prefix) for prefix in gone)):
            verdict.aside.append(one)
        else:
            missing = "not run"
            verdict.differ[one] = (
                there.outcome if there else missing,
                here.outcome if here else missing,
                here.why if here and here.why else there.why if there else "",
            )
    if outside.module not in ("done", "skip") or outside.module != inside.module:
        verdict.note = f"module: {outside.module} outside, {inside.module} inside ({inside.why})"
        if inside.open:
            verdict.note += f", in {', '.join(inside.open)}"
    return verdict


def reasons(differ: Iterable[tuple[str, str, str]]) -> dict[str, int]:
    """Differing cases by what they said."""
    found: dict[str, int] = {}
    for outside, inside, why in differ:
        text = f"{outside} outside, {inside} inside: {why}"
        found[text] = found.get(text, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
