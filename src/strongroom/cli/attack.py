"""``strongroom attack``: attempts to break in, each beside a control. The work is in ``_attack*.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli._options import Json, LevelOption, VmOption


def register(app: typer.Typer) -> None:
    @app.command(
        epilog="Examples: `strongroom attack` · `strongroom attack --only memory --level faithful --json` · "
        "`strongroom attack --all --table --write docs/attacks.md`"
    )
    def attack(
        only: Annotated[
            list[str] | None, typer.Option("--only", help="Just this attack; may be repeated.")
        ] = None,
        level: LevelOption = None,
        every: Annotated[
            bool, typer.Option("--all", help="Not the six of the demo alone: every attack there is.")
        ] = False,
        vm: VmOption = "default",
        table: Annotated[
            bool, typer.Option("--table", help="At every level that this machine gives; one table.")
        ] = False,
        write: Annotated[
            Path | None, typer.Option("--write", help="With --table: write the page (docs/attacks.md).")
        ] = None,
        json: Json = False,
    ) -> int:
        """Try to break in: debugger, memory, code, data, files, quote, and with --all what else there is.

        Each attempt is made beside an ordinary process. Status 0: every attack was made and its outcome is what the
        level promises. 1: something else.
        """
        from strongroom.cli import _attack, _attack_outcomes, _attack_table, _output
        from strongroom.errors import UsageError

        if (table and level) or (write and not table):
            raise UsageError(
                "--table is of all levels, and --write is of --table", "leave --level out, or add --table"
            )
        if table:
            outcomes = _attack_table.collect(vm, only or [], every=every, progress=not json)
            if write:
                _attack_table.write(write, _attack_table.page(outcomes))
            if json:
                _output.print_json(_attack_table.to_plain(outcomes))
            else:
                _attack_table.show(outcomes)
        else:
            outcomes = _attack.run_all(vm, level, only or [], progress=not json, every=every)
            if json:
                _output.print_json(_attack_outcomes.to_plain(outcomes))
        return 0 if _attack_outcomes.as_promised(outcomes) else 1
