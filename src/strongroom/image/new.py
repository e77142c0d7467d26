"""``strongroom new``: a project that builds and runs as it is."""

from __future__ import annotations

import os
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.image.manifest import NAME

_MANIFEST = """# What goes into the enclave, all of it measured. Each key: docs/manifest.md.
[enclave]
main = "main.py"            # this folder is measured
packages = []               # whole distributions, with what they require: ["cryptography"]
memory = "32M"              # heap; `strongroom build` says which VM sizes hold it
threads = 4
svn = 1                     # raise on a security fix

[files]
# "/data" = "encrypted:sealed"     trusted | encrypted:release | encrypted:sealed | temporary | allowed
"""
_MAIN = '''"""Runs inside the enclave. Nothing outside sees this process' memory; what it prints, everybody sees."""

import hashlib
import os

secret = os.urandom(32)
print("Hello from inside.")
print("SHA-256 of a number that only this enclave knows:", hashlib.sha256(secret).hexdigest())
'''
_IGNORE = "build/\n__pycache__/\n*.pem\n"


def new(directory: Path) -> list[Path]:
    """Make the project's files in ``directory`` (new or empty). Returns them. Raises StrongroomError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise StrongroomError(
                f"{directory} is not empty",
                "name a new folder, or write enclave.toml into this one (docs/manifest.md)",
            )
        made = []
        for name, text in ((NAME, _MANIFEST), ("main.py", _MAIN), (".gitignore", _IGNORE)):
            path = directory / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            made.append(path)
    except OSError as error:
        raise StrongroomError(f"cannot make {directory} ({error.strerror})", "name another folder") from error
    return made
