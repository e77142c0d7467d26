"""``strongroom measure FILE``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Examples: `strongroom measure hello` · `cat enclave.sgxs | strongroom measure -`")
    def measure(
        file: Annotated[
            Path, typer.Argument(help="An SGXS stream, a signed .so, or a project; - for standard input.")
        ],
        as_json: Json = False,
    ) -> None:
        """Print the MRENCLAVE of an enclave file, computed from its content.

        Ends with status 1 where a signature that comes with it is over another measurement.
        """
        from strongroom.cli import _newer
        from strongroom.image.measure import measure as measure_path

        found = measure_path(Path("/dev/stdin") if str(file) == "-" else file)
        if as_json:
            print_json(asdict(found))
        else:
            typer.echo(found.mrenclave.hex())
        _newer.tell_of(file)
        found.check_signed()
