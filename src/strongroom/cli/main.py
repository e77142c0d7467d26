"""The command line's frame: finds the verbs, prints errors, chooses the exit status.

A verb is a module ``strongroom.cli.<verb>`` with ``register(app: typer.Typer) -> None``; a file whose name starts
with ``_`` is a helper. A verb's module keeps its imports light and imports what it works with inside its functions:
only the verb that was named is loaded.
"""

from __future__ import annotations

import sys

try:
    import errno
    import importlib
    import os
    import pkgutil
    from collections.abc import Sequence
    from typing import Annotated, TextIO

    import typer

    import strongroom
    import strongroom.cli
    from strongroom.cli._output import complain
    from strongroom.errors import StrongroomError, UsageError
except KeyboardInterrupt:  # half of a verb's start: no place for a traceback
    sys.exit(130)

# The order of `strongroom --help`; verbs that are not here follow by name.
ORDER = (
    "doctor", "new", "build", "run", "exec", "encrypt", "decrypt", "measure", "inspect", "diff", "quote", "verify",
    "vm", "fit", "serve", "daemon", "attack", "demo",
)  # fmt: skip
NOT_VERBS = frozenset({"main"})
EPILOG = """Examples:

`strongroom doctor` · what this machine offers

`strongroom new hello && strongroom build hello && strongroom run hello` · a first enclave

`strongroom vm create clinic --size Standard_DC4s_v2` · a virtual machine

It behaves like SGX; it does not protect like SGX."""


def verbs() -> list[str]:
    """Names of the verbs whose module is there, in the order of the help."""
    found = {
        module.name
        for module in pkgutil.iter_modules(strongroom.cli.__path__)
        if not module.name.startswith("_") and module.name not in NOT_VERBS
    }
    ranked = {name: rank for rank, name in enumerate(ORDER)}
    return sorted(found, key=lambda name: (ranked.get(name, len(ranked)), name))


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"strongroom {strongroom.__version__}")
        raise typer.Exit()


def make_app(argv: Sequence[str] = ()) -> typer.Typer:
    """The application with every verb, or with just the one that ``argv`` (without the program) starts with."""
    app = typer.Typer(
        name="strongroom",
        help="Confidential virtual machines (Azure DCsv2, Intel SGX) in software.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def frame(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop."),
        ] = False,
    ) -> None:
        pass

    known = verbs()
    # Importing one verb instead of all keeps the start short; completion and help want all of them.
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    if argv and argv[0] in known and not completing:
        known = [argv[0]]
    for verb in known:
        importlib.import_module(f"strongroom.cli.{verb}").register(app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0; 1; 2 for usage; or what a verb passes through: those that end as a program does have 125 for all of ours.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    passing = arguments[:1] in (["run"], ["exec"]) or arguments[:2] == ["vm", "exec"]
    try:
        command = typer.main.get_command(make_app(arguments))
        status = command.main(arguments, prog_name="strongroom", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except UsageError as error:
        complain(str(error))
        return 125 if passing else 2
    except StrongroomError as error:
        complain(str(error))
        return 125 if passing else 1
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        complain("stopped")
        return 130
    except typer.TyperException as error:  # words that Typer could not make sense of
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2  # Typer has printed the help already
        path = context.command_path if context is not None else "strongroom"
        complain(f"{error.format_message().rstrip('.')}: see `{path} --help`")
        return 125 if passing else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains at its end
        return 1
    except OSError as error:
        if error.errno == errno.ENOSPC:
            complain(f"the disk is full ({error.filename or 'no file named'}): free some space and try again")
        else:
            complain(f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}")
        return 125 if passing else 1


def _lenient(stream: TextIO | None) -> None:
    """What this terminal's encoding has no sign for becomes ``?``: it ended a verb halfway through its output."""
    if stream is not None and getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def entry() -> None:
    """Console script."""
    _lenient(sys.stdout)
    _lenient(sys.stderr)
    sys.exit(main())


if __name__ == "__main__":
    entry()
