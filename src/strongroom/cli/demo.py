"""``strongroom demo``: the main job, start to end, then the attacks. The work is in ``_demo.py``."""

from __future__ import annotations

from typing import Annotated

import typer

from strongroom.cli._options import Json, LevelOption


def register(app: typer.Typer) -> None:
    @app.command(epilog="Examples: `strongroom demo` · `strongroom demo --level faithful`")
    def demo(
        level: LevelOption = None,
        attacks: Annotated[bool, typer.Option("--attacks/--no-attacks", help="Also try to break in.")] = True,
        json: Json = False,
    ) -> int:
        """A hospital's records, scored inside an enclave; then six attacks, each beside a control."""
        from strongroom.cli import _demo, _output

        result = _demo.run(level, attacks=attacks, progress=not json)
        if json:
            _output.print_json(result)
        return 0 if result["as_promised"] else 1
