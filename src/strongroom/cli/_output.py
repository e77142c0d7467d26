"""What the verbs print with: JSON for programs, Rich for people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def one_line(text: str) -> str:
    """``text`` without line ends or control characters: other people's words reach the terminal through this."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def complain(text: str) -> None:
    """One line on standard error."""
    try:
        print(f"strongroom: {one_line(text)}", file=sys.stderr)
    except OSError:
        pass  # nobody left to tell


def print_json(value: Any) -> None:
    """One JSON document on standard output; bytes become hex, paths text."""
    json.dump(value, sys.stdout, indent=2, default=_plain)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return str(value)


def console(stderr: bool = False) -> Console:
    """A Rich console (imported late: it costs a tenth of a second)."""
    from rich.console import Console

    # Into a pipe nothing is cut: what reads it may look for any word.
    piped = not (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=200 if piped else None)
