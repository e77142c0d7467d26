"""``strongroom inspect FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import console, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Examples: `strongroom inspect hello` · `strongroom inspect records.quote --json`")
    def inspect(
        file: Annotated[Path, typer.Argument(help="A SIGSTRUCT, SGXS stream, quote, a project…")],
        as_json: Json = False,
    ) -> None:
        """Print the fields of any SGX artefact."""
        from strongroom.image.inspect import inspect as inspect_path

        found = inspect_path(file)
        if as_json:
            print_json({"kind": found.kind, **found.facts})
            return
        out = console()
        out.print(found.kind, style="bold", markup=False)
        _show(out, found.facts, "  ")


def _show(out: Any, facts: dict[str, Any], indent: str) -> None:
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            out.print(f"{indent}{name}", style="bold", markup=False)
            _show(out, value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            out.print(f"{indent}{name}", style="bold", markup=False)
            for row in value:
                out.print(indent + "  " + "  ".join(_text(cell) for cell in row.values()), markup=False)
        else:
            out.print(f"{indent}{name:<{width}}  {_text(value)}", markup=False)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex() if any(value) else "0"
    if isinstance(value, list):
        return " ".join(value) or "-"
    return str(value)
