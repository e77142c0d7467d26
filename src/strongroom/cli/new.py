"""``strongroom new DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: `strongroom new hello && strongroom build hello && strongroom run hello`")
    def new(
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
        as_json: Json = False,
    ) -> None:
        """Make an enclave project that builds and runs as it is."""
        from strongroom.image.new import new as make

        made = make(directory)
        if as_json:
            print_json({"directory": directory, "files": made})
        else:
            typer.echo(f"made {', '.join(str(path) for path in made)}")
            typer.echo(f"next: strongroom build {directory} && strongroom run {directory}")
