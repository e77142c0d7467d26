"""``strongroom run``: an enclave image in a VM."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli._options import Arguments, LevelOption, LineJson, Project, VmOption
from strongroom.errors import StrongroomError, UsageError

if TYPE_CHECKING:
    from strongroom.machine.launch import Image, Spawned


def register(app: typer.Typer) -> None:
    @app.command(
        context_settings={"allow_interspersed_args": False},
        epilog="Examples: `strongroom run hello` · `strongroom run --vm clinic records -- --verbose`",
    )
    def run(
        directory: Project,
        arguments: Arguments = None,
        vm: VmOption = "default",
        level: LevelOption = None,
        guard: Annotated[
            bool,
            typer.Option(
                "--guard", help="A tracer of ours stays attached: no debugger gets in; signals cost more."
            ),
        ] = False,
        json: LineJson = False,
    ) -> int:
        """Run an enclave in a VM; its exit status is the program's (125: ours, 128+n: a signal)."""
        from strongroom.cli._output import complain
        from strongroom.machine import launch

        given = list(arguments or [])
        own = given[:1] == ["--"]
        if own:
            del given[0]
        try:
            if given and not own and given[0].startswith("-"):
                raise UsageError(
                    f"{given[0]} stands after DIR",
                    f"options go before DIR; what is the program's goes after `--` (`{directory} -- {given[0]}`)",
                )
            return launch.run(
                vm, directory, given, forced=level, as_json=json, guard=guard,
                on_begin=partial(_newer, json), on_end=partial(_paged, json),
            )  # fmt: skip
        except StrongroomError as error:
            complain(str(error))
            return launch.FAILED


def _newer(as_json: bool, image: Image) -> None:
    from strongroom.cli import _newer

    _newer.tell(image.folder, image.facts, as_json)


def _paged(as_json: bool, spawned: Spawned, seconds: float) -> None:
    """One more line on standard error, where the run paged."""
    from strongroom.vm import paging

    if text := paging.line(spawned.paging, seconds, spawned.size, as_json):
        print(text, file=sys.stderr, flush=True)
