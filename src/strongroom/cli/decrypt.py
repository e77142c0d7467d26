"""``strongroom decrypt FOLDER NEW_FOLDER``: what an enclave wrote to an ``encrypted:release`` mount."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import print_json
from strongroom.cli.encrypt import At, Key


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(epilog="Example: `strongroom decrypt --key model.key --at /model model code`")
    def decrypt(
        source: Annotated[Path, typer.Argument(help="The folder of ciphertext.")],
        target: Annotated[Path, typer.Argument(help="The new folder in clear.")],
        key: Key,
        at: At,
        as_json: Json = False,
    ) -> None:
        """Decrypt a folder of encrypted files: all of them, or, where one is refused, none."""
        from strongroom.owner import keys
        from strongroom.owner.folders import decrypt_folder

        done = decrypt_folder(keys.load_key(key), source, target, at)
        if as_json:
            print_json({"target": target, "files": done.files, "size": done.size})
        else:
            typer.echo(f"{target}: {len(done.files)} files, {done.size} bytes")
