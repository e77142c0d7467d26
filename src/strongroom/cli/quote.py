"""``strongroom quote DIR``."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli._options import Json, VmOption
from strongroom.cli._output import print_json
from strongroom.errors import StrongroomError, UsageError


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        epilog="Example: `strongroom quote examples/records --out records.quote --collateral records.json`"
    )
    def quote(
        directory: Annotated[
            Path, typer.Argument(metavar="DIR", help="A built project that exports functions.")
        ],
        vm: VmOption = "default",
        data: Annotated[
            str, typer.Option(help="Hexadecimal; the report data is made from it, and from a label.")
        ] = "",
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="Write here instead of standard output.")
        ] = None,
        collateral: Annotated[
            Path | None, typer.Option(help="Write the collateral that a verifier needs here.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Start an enclave, have it quoted, and end it.

        What it proves: that this enclave ran on this VM's package. The quote is a SOFTWARE one.
        """
        from strongroom.cli import _newer
        from strongroom.host import Enclave
        from strongroom.inside.binding import host_report_data

        try:
            wanted = bytes.fromhex(data)
        except ValueError:
            raise UsageError(
                f"--data {data!r} is not hexadecimal", "write two of 0-9 and a-f for each byte"
            ) from None
        if out is None and not as_json and sys.stdout.isatty():
            raise UsageError("a quote is binary", "add --out FILE, or --json")
        _newer.tell_of(directory)
        with Enclave(directory, vm) as box:
            made = box.quote(wanted)
            facts = box.facts
        if collateral is not None:
            _write(collateral, _collateral_for(made).encode())
        if out is not None:
            _write(out, made)
        if as_json:
            print_json({**facts, "report_data": host_report_data(wanted), "quote": made})
        elif out is None:
            sys.stdout.buffer.write(made)
        else:
            typer.echo(f"{out}: {len(made)} bytes, MRENCLAVE {facts['mrenclave']}")


def _collateral_for(made: bytes) -> str:
    from datetime import UTC, datetime

    from strongroom import paths
    from strongroom.owner.sources import FromSoftwarePki

    return FromSoftwarePki(paths.home())(made, datetime.now(UTC)).to_json()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StrongroomError(f"cannot write {path} ({error.strerror})", "name another file") from None
