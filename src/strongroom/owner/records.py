"""Encrypt and decrypt files of records, whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.inside.errors import RecordError
from strongroom.inside.records import RecordKey


class RecordFileError(StrongroomError):
    """A file cannot be encrypted or decrypted."""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordFileError(f"cannot read {path} ({error.strerror})", "name a file") from None


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordFileError(f"cannot write {path} ({error.strerror})", "choose another place") from None


def encrypt_file(key: RecordKey, plain: Path, sealed: Path) -> None:
    """Write the record of ``plain``'s bytes to ``sealed`` (0600). Raises RecordFileError."""
    try:
        record = key.encrypt(_read(plain))
    except RecordError as error:
        raise RecordFileError(f"{plain}: {error}") from None
    _replace(sealed, record)


def decrypt_file(key: RecordKey, sealed: Path, plain: Path) -> None:
    """Write what the record ``sealed`` holds to ``plain`` (0600). Raises RecordFileError."""
    try:
        data = key.decrypt(_read(sealed))
    except RecordError as error:
        raise RecordFileError(f"{sealed}: {error}", "use the key it was encrypted with") from None
    _replace(plain, data)
