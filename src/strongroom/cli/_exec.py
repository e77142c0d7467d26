"""What ``exec`` and ``vm exec`` share: errors as exit status 125."""

from __future__ import annotations

import typer

from strongroom.errors import StrongroomError

FAILED = 125


def run_and_pass_status(vm: str, program: list[str], *, tamper: str | None, as_json: bool = False) -> int:
    """The program's exit status, or 125 after one line."""
    from strongroom.cli._output import complain
    from strongroom.vm import guest

    words = program[1:] if program[:1] == ["--"] else program
    if not words:
        raise typer.BadParameter("no program is named")
    try:
        return guest.run(vm, words, tamper=tamper, as_json=as_json)
    except StrongroomError as error:
        complain(str(error))
        return FAILED
