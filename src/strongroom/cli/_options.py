"""Options and arguments that several verbs have, and what a shell completes them with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def vm_names(incomplete: str) -> list[str]:
    """The VMs that there are; none, and nothing made, where there is no STRONGROOM_HOME yet."""
    from strongroom import paths
    from strongroom.errors import StrongroomError

    try:
        if not paths.home().is_dir():
            return []
        from strongroom.cli._machines import machines

        return [vm.name for vm in machines().records.all() if vm.name.startswith(incomplete)]
    except (StrongroomError, OSError):
        return []


def size_names(incomplete: str) -> list[str]:
    """The catalogue's sizes."""
    from strongroom.vm.sizes import CATALOGUE

    return [size.name for size in CATALOGUE if size.name.startswith(incomplete)]


def level_names(incomplete: str) -> list[str]:
    """The three levels, best first."""
    from strongroom.machine.level import Level

    return [level.value for level in Level if level.value.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LineJson = Annotated[bool, typer.Option("--json", help="Print the line on standard error as JSON.")]
Project = Annotated[Path, typer.Argument(metavar="DIR", help="The enclave's project, built before.")]
Arguments = Annotated[list[str] | None, typer.Argument(metavar="-- ARGS", help="For the program.")]
Program = Annotated[list[str], typer.Argument(metavar="-- PROGRAM…", help="The program.")]
VmOption = Annotated[str, typer.Option("--vm", help="The VM to run in.", autocompletion=vm_names)]
LevelOption = Annotated[
    str | None,
    typer.Option("--level", help="Force sealed, separated or faithful.", autocompletion=level_names),
]
