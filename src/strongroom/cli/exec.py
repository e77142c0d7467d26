"""``strongroom exec``: any SGX program on the software processor."""

from __future__ import annotations

from typing import Annotated

import typer

from strongroom.cli._options import LineJson, Program, VmOption


def register(app: typer.Typer) -> None:
    @app.command(
        "exec",
        context_settings={"allow_interspersed_args": False},
        epilog="Example: `strongroom exec --vm clinic -- ./loader enclave.sgxs enclave.sig`",
    )
    def exec_(
        program: Program,
        vm: VmOption = "default",
        tamper: Annotated[
            str | None, typer.Option("--tamper", help="`disable`: a write from outside disables the enclave.")
        ] = None,
        json: LineJson = False,
    ) -> int:
        """Run an SGX program in a VM; its exit status is the program's (125: ours, 128+n: a signal)."""
        from strongroom.cli._exec import run_and_pass_status

        return run_and_pass_status(vm, program, tamper=tamper, as_json=json)
