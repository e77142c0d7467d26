"""``strongroom build [DIR]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import console, print_json
from strongroom.errors import StrongroomError

if TYPE_CHECKING:
    from strongroom.image.build import BuildResult


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        epilog="Examples: `strongroom build` · `strongroom build examples/records --key file:release.pem`"
    )
    def build(
        directory: Annotated[
            Path, typer.Argument(metavar="DIR", help="The project: a folder with enclave.toml.")
        ] = Path(),
        out: Annotated[Path | None, typer.Option(help="Where the image goes; DIR/build by default.")] = None,
        key: Annotated[
            str | None,
            typer.Option(help="Signing key, file:PATH from here (RSA-3072, exponent 3); yours by default."),
        ] = None,
        python: Annotated[
            str | None, typer.Option(help="The CPython that goes inside, with its packages.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Build and sign an enclave image. The same input gives the same MRENCLAVE."""
        make = builder()
        if as_json:
            result = make(directory, out, key=key, python=python)
            print_json(asdict(result) | {"vm_sizes": fitting(result.epc_size, result.edmm)})
            return
        screen = console(stderr=True)
        if screen.is_terminal:
            with screen.status("reading enclave.toml") as status:
                result = make(directory, out, status.update, key=key, python=python)
        else:
            result = make(directory, out, key=key, python=python)
        print_result(result)


def builder() -> Callable[..., BuildResult]:
    """The function that builds. Raises StrongroomError where the libraries for it are not installed."""
    try:
        from strongroom.image.build import build
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("capstone", "elftools", "packaging"):
            raise
        raise StrongroomError(
            f"building needs {error.name}, which is not installed", "run `pip install 'strongroom[build]'`"
        ) from error
    return build


def fitting(epc_size: int, edmm: bool) -> list[str]:
    """Names of the VM sizes whose EPC holds an enclave of ``epc_size`` bytes and its SECS page without paging.

    With ``edmm`` only sizes with SGX2 do.
    """
    from strongroom.vm.sizes import CATALOGUE

    return [
        size.name for size in CATALOGUE if epc_size + 4096 <= size.epc_mib << 20 and (size.sgx2 or not edmm)
    ]


def print_result(result: BuildResult) -> None:
    """What was built, in words."""
    from strongroom.vm.sizes import CATALOGUE

    sizes = fitting(result.epc_size, result.edmm)
    typer.echo(f"MRENCLAVE  {result.mrenclave.hex()}")
    typer.echo(f"MRSIGNER   {result.mrsigner.hex()}")
    typer.echo(f"measured   {_mib(result.measured_size)} MiB, and {result.file_count} files by their hashes")
    more = ", and of the heap what is used" if result.edmm else ""
    typer.echo(f"EPC        {_mib(result.epc_size)} MiB{more}")
    if not sizes:
        typer.echo(
            f"VM sizes   none holds it without paging; the largest has {max(s.epc_mib for s in CATALOGUE)} MiB"
        )
    elif result.edmm:
        typer.echo("VM sizes   those with SGX2: DCsv3 and DCdsv3")
    elif len(sizes) == len(CATALOGUE):
        typer.echo("VM sizes   every size holds it")
    else:
        small = [size.name for size in CATALOGUE if size.name not in sizes]
        typer.echo(f"VM sizes   {sizes[0]} and larger hold it; {', '.join(small)} would page")
    if result.late_code:
        typer.echo(f"late code  {_mib(result.late_code)} MiB that can be WRITTEN AND EXECUTED")
        typer.echo(
            "note: late_code: whoever finds a way to write memory inside (a fault of the program, its libraries or "
            "the interpreter) can have code of his own run there; leave it out where no code is made at run time",
            err=True,
        )
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"image      {result.directory}")


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"
