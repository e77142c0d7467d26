"""Whole folders for an ``encrypted:release`` mount, and back. The new folder appears whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from strongroom.errors import StrongroomError
from strongroom.owner.encrypted import STAGE_PREFIX, EncryptedFileError, Reader, encrypt


@dataclass(frozen=True)
class Done:
    """What was written: files by their path inside, and their bytes in clear."""

    files: tuple[str, ...]
    size: int


def encrypt_folder(key: bytes, source: Path, target: Path, at: str) -> Done:
    """Encrypt the folder ``source`` into the new folder ``target``, for a mount at ``at``. Raises StrongroomError."""

    def one(path: str, host: Path, out: Path) -> int:
        with open(host, "rb") as clear, _new_file(out) as file:
            facts = os.fstat(clear.fileno())
            size = encrypt(key, path, clear, file, mtime_ns=facts.st_mtime_ns)
        return size

    return _each(source, target, at, one)


def decrypt_folder(key: bytes, source: Path, target: Path, at: str) -> Done:
    """The reverse. Raises StrongroomError with the path of the first file that is refused; then nothing is left."""

    def one(path: str, host: Path, out: Path) -> int:
        try:
            with open(host, "rb") as sealed, _new_file(out) as file:
                reader = Reader(key, path, sealed)
                for chunk in reader.chunks():
                    file.write(chunk)
            os.utime(out, ns=(reader.header.mtime_ns, reader.header.mtime_ns))
        except EncryptedFileError as error:
            raise StrongroomError(
                f"{host} is refused as {path}: {error.message}", "check key and --at, or get the file again"
            ) from None
        except OverflowError:
            raise StrongroomError(f"{host} has a time that this system cannot set") from None
        return reader.header.size

    return _each(source, target, at, one)


def _each(source: Path, target: Path, at: str, one: Callable[[str, Path, Path], int]) -> Done:
    if not at.startswith("/") or os.path.normpath(at) != at or at == "/":
        raise StrongroomError(f"{at!r} is no mount's path inside", 'write it as in enclave.toml: "/data"')
    if not source.is_dir():
        raise StrongroomError(f"{source} is not a folder", "name one")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise StrongroomError(f"{target} is there already", "name a new folder")
    if target.resolve().is_relative_to(source.resolve()):
        raise StrongroomError(f"{target} lies in {source}", "name a folder outside it")
    staged = target.with_name(f".{target.name}.{os.getpid()}.new")
    files: list[str] = []
    total = 0
    try:
        staged.mkdir(mode=0o700, parents=True)
        for host, relative, directory in _walk(source):
            out = staged / relative
            if directory:
                out.mkdir(mode=0o755)
                continue
            path = str(PurePosixPath(at, relative))
            total += one(path, host, out)
            files.append(path)
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()
        staged.rename(target)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StrongroomError(
            f"cannot write {target}: {error.strerror}{where}", "free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Done(tuple(files), total)


def _walk(source: Path) -> Iterator[tuple[Path, str, bool]]:
    """(host path, path below ``source``, whether a folder) of all there is, folders before what they hold."""
    for directory, names, files in os.walk(source, onerror=_raise):
        names[:] = sorted(name for name in names if name != "__pycache__")  # byte code is made anew
        for name in sorted([*names, *files]):
            host = Path(directory, name)
            relative = str(host.relative_to(source))
            mode = host.lstat().st_mode
            if name.startswith(STAGE_PREFIX):
                continue
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise StrongroomError(f"{host} is neither a file nor a folder", "take it out")
            yield host, relative, stat.S_ISDIR(mode)


def _raise(error: OSError) -> None:
    raise error


def _new_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")
