"""The verdicts in words: a line, JSON, the page docs/conformance.md."""

from __future__ import annotations

from typing import Any

from conformance.compare import Verdict, reasons


def line(verdict: Verdict) -> str:
    state = "as outside" if verdict.as_outside else f"{len(verdict.differ)} differ"
    aside = f", {len(verdict.aside)} set aside" if verdict.aside else ""
    note = f"; {verdict.note}" if verdict.note else ""
    return f"{verdict.name}: {state}, {verdict.alike} of {verdict.total} alike{aside}{note}"


def as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name, "as_outside": verdict.as_outside, "cases": verdict.total, "alike": verdict.alike,
        "skipped": verdict.skipped, "set_aside": verdict.aside, "differ": verdict.differ, "note": verdict.note,
        "reasons": reasons(verdict.differ.values()),
    }  # fmt: skip


def page(verdicts: list[Verdict], python: str) -> str:
    del python
    return "\n".join(line(one) for one in verdicts)
