"""``strongroom diff A B``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import print_json

if TYPE_CHECKING:
    from strongroom.image.diff import Difference

MOST_LINES = 20


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: `strongroom diff records/build ../other/records/build`")
    def diff(
        one: Annotated[Path, typer.Argument(metavar="A", help="A project or its build folder.")],
        two: Annotated[Path, typer.Argument(metavar="B", help="The other one.")],
        as_json: Json = False,
    ) -> None:
        """Say which manifest fields, files and pages differ between two images.

        Ends with status 0 where both measure the same, else 1.
        """
        from strongroom.image.diff import diff as compare

        found = compare(one, two)
        if as_json:
            print_json(asdict(found))
        else:
            _print(found)
        if not found.same:
            raise typer.Exit(1)


def _print(found: Difference) -> None:
    if found.same:
        typer.echo(f"same MRENCLAVE {found.mrenclave_one.hex()}")
    else:
        typer.echo(f"A  MRENCLAVE {found.mrenclave_one.hex()}")
        typer.echo(f"B  MRENCLAVE {found.mrenclave_two.hex()}")
    fields = [f"field {one.name}: {one.one} / {one.two}" for one in found.fields]
    files = [
        f"file {one.path}: {one.what}" + (f" from byte {one.offset}" if one.offset is not None else "")
        for one in found.files
    ]
    pages = [
        f"page {one.address:#x}"
        + (f" and {one.count - 1} more" if one.count > 1 else "")
        + f", {one.region}: {one.what}"
        for one in found.pages
    ]
    for lines in (fields, files, pages):
        for line in lines[:MOST_LINES]:
            typer.echo(line)
        if len(lines) > MOST_LINES:
            typer.echo(f"… and {len(lines) - MOST_LINES} more (--json has all)")
