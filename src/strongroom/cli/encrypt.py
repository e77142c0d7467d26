"""``strongroom encrypt FOLDER NEW_FOLDER``: files for an ``encrypted:release`` mount."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import print_json

Key = Annotated[Path, typer.Option("--key", help="The owner's key file (64 hex digits, mode 0600).")]
At = Annotated[str, typer.Option("--at", help="The mount's path inside, as under [files] in enclave.toml.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: `strongroom encrypt --key model.key --new-key --at /model code model`")
    def encrypt(
        source: Annotated[Path, typer.Argument(help="The folder in clear.")],
        target: Annotated[Path, typer.Argument(help="The new folder, for the host: ciphertext only.")],
        key: Key,
        at: At,
        new_key: Annotated[bool, typer.Option("--new-key", help="Make the key file first.")] = False,
        as_json: Json = False,
    ) -> None:
        """Encrypt a folder so that an enclave which the owner gives the key can read it.

        Contents are encrypted, and bound to their paths; names and sizes stay visible. A path that changes, a byte or
        a length that is altered: the file is refused inside.
        """
        from strongroom.owner import keys
        from strongroom.owner.folders import encrypt_folder

        if new_key:
            keys.new_key(key)
        done = encrypt_folder(keys.load_key(key), source, target, at)
        if as_json:
            print_json({"target": target, "files": done.files, "size": done.size})
        else:
            typer.echo(f"{target}: {len(done.files)} files, {done.size} bytes in clear, for a mount at {at}")
