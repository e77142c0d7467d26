"""Output that is there whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from strongroom.errors import StrongroomError


@contextlib.contextmanager
def fresh(target: Path, mark: str) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place when all went well, and vanishes otherwise.

    What is there is replaced only when it holds a file ``mark``, or nothing. Raises StrongroomError.
    """
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / mark).exists())):
        raise StrongroomError(
            f"{target} is there and was not built by Strongroom", "name another folder with --out"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}-{os.getpid()}-", dir=target.parent))
    except OSError as error:
        raise StrongroomError(
            f"cannot write in {target.parent} ({error.strerror})", "make it writable"
        ) from error
    try:
        yield made
        made.chmod(0o755)
        _replace(made, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StrongroomError(
                f"the disk is full, {target} is as it was", "free some space and build again"
            ) from error
        raise StrongroomError(f"cannot write {target} ({error.strerror})", "make it writable") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what a build that was killed left behind: folders whose name holds the number of no process."""
    for left in target.parent.glob(f".{target.name}-*-*"):
        number = left.name.removeprefix(f".{target.name}-").split("-")[0]
        if number.isdigit() and left.is_dir() and not Path("/proc", number).exists():
            shutil.rmtree(left, ignore_errors=True)


def _replace(made: Path, target: Path) -> None:
    """Put ``made`` where ``target`` is; the old one ends up at ``made``. At no moment is there half of one."""
    with contextlib.suppress(
        FileExistsError, NotADirectoryError
    ):  # ENOTEMPTY is another build's, just finished
        try:
            os.rename(made, target)  # works where nothing is there, or an empty folder
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
    libc = ctypes.CDLL(None, use_errno=True)
    exchange = 2  # RENAME_EXCHANGE, renameat2(2)
    at_cwd = -100  # AT_FDCWD
    if libc.renameat2(at_cwd, os.fsencode(made), at_cwd, os.fsencode(target), exchange) == 0:
        return
    old = made.with_name(f"{made.name}.old")
    os.rename(target, old)
    os.rename(made, target)
    shutil.rmtree(old, ignore_errors=True)
