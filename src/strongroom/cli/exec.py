"""``strongroom exec``: any SGX program on the software processor."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    @app.command(
        "exec",
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        epilog="Example: `strongroom exec --vm clinic -- ./loader enclave.sgxs enclave.sig`",
    )
    def exec_(
        program: Annotated[list[str], typer.Argument(metavar="-- PROGRAM…", help="The program.")],
        vm: Annotated[str, typer.Option("--vm", help="The VM to run in.")] = "default",
        tamper: Annotated[
            str | None, typer.Option("--tamper", help="`disable`: a write from outside disables the enclave.")
        ] = None,
        json: Annotated[
            bool, typer.Option("--json", help="Print the line on standard error as JSON.")
        ] = False,
    ) -> int:
        """Run an SGX program in a VM; its exit status is the program's (125: ours, 128+n: a signal)."""
        from strongroom.cli._exec import run_and_pass_status

        return run_and_pass_status(vm, program, tamper=tamper, as_json=json)
