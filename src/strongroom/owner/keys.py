"""The owner's keys: 32 bytes in hexadecimal, one a file, mode 0600. Their text never reaches an error or a log."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.inside.records import KEY_SIZE, RecordKey


class KeyFileError(StrongroomError):
    """A key file cannot be made or read."""


def new_key(path: Path) -> None:
    """Make a key file; never replaces one. Raises KeyFileError."""
    text = secrets.token_bytes(KEY_SIZE).hex() + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} is there already", "choose another name: data may depend on it") from None
    except OSError as error:
        raise KeyFileError(f"cannot make {path} ({error.strerror})", "choose another folder") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"cannot write {path} ({error.strerror})", "free some space") from None


def load_key(path: Path) -> bytes:
    """The key's 32 bytes. Raises KeyFileError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise KeyFileError(f"cannot read the key {path} ({why})", "name a key file") from None
    if mode & 0o077:
        raise KeyFileError(f"the key {path} is open to other users", f"chmod 600 {path}")
    if re.fullmatch(rf"[0-9a-f]{{{2 * KEY_SIZE}}}\n?", text) is None:
        raise KeyFileError(f"{path} is not a key file", "name one that was made by `new-key`")
    return bytes.fromhex(text)


def record_key(path: Path, name: str) -> RecordKey:
    """The key in ``path`` as the one called ``name``. Raises KeyFileError."""
    return RecordKey(name, load_key(path))
