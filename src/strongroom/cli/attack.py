"""``strongroom attack``: six attempts to break in, each beside a control. The work is in ``_attack.py``."""

from __future__ import annotations

from typing import Annotated

import typer

from strongroom.cli._output import Json


def register(app: typer.Typer) -> None:
    @app.command(
        epilog="Examples: `strongroom attack` · `strongroom attack --only memory --level faithful --json`"
    )
    def attack(
        only: Annotated[
            list[str] | None, typer.Option("--only", help="Just this attack; may be repeated.")
        ] = None,
        level: Annotated[
            str | None, typer.Option("--level", help="Force sealed, separated or faithful.")
        ] = None,
        vm: Annotated[str, typer.Option("--vm", help="The VM to run the enclaves in.")] = "default",
        json: Json = False,
    ) -> int:
        """Try to break in: debugger, memory, code, data, files, quote; each beside an ordinary process.

        Status 0: every attack was made and its outcome is what the level promises. 1: something else.
        """
        from strongroom.cli import _attack, _output

        outcomes = _attack.run_all(vm, level, only or [], progress=not json)
        if json:
            _output.print_json(_attack.to_plain(outcomes))
        return 0 if _attack.as_promised(outcomes) else 1
