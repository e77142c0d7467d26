"""The projects that come with Strongroom: where they are, and built copies of them beside the VMs."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from strongroom import paths
from strongroom.errors import StrongroomError


def shipped(name: str) -> Path:
    """The folder ``attacks`` or ``examples``: the source tree's, or the wheel's. Raises StrongroomError."""
    package = Path(paths.__file__).resolve().parent
    for place in (package.parent.parent / name, package / f"_{name}"):
        if place.is_dir():
            return place
    raise StrongroomError(f"the folder {name}/ is not installed", "run this from the source tree")


def project(name: str, without: tuple[str, ...] = ()) -> Path:
    """A built copy of a project, kept beside the VMs and built anew only when its files or we changed.

    ``without``: names of files and folders that are not the host's, so that the copy does not have them.
    """
    from strongroom.image.build import build

    parent, _, last = name.partition("/")
    source = shipped(parent) / last
    where = paths.private_directory(paths.ensure_home() / "built")
    state = hashlib.sha256()
    ours = Path(paths.__file__).resolve().parent
    for file in sorted(
        [
            *source.rglob("*"),
            *ours.rglob("*.py"),
            paths.native_directory() / "libos.elf",
            Path(sys.executable),
        ]
    ):
        if (
            file.is_file()
            and "__pycache__" not in file.parts
            and "build" not in file.relative_to(file.anchor).parts[-2:-1]
        ):
            facts = file.stat()
            state.update(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    target = where / f"{last}-{state.hexdigest()[:16]}"
    if not (target / "build" / "enclave.sig").is_file():
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=where))
        try:
            shutil.copytree(
                source, fresh / last, ignore=shutil.ignore_patterns("build", "__pycache__", *without)
            )
            build(fresh / last)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(fresh / last, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for old in where.glob(f"{last}-*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


def elrange_of(built: Path) -> int:
    """ELRANGE's size in bytes: SECS.SIZE of the ECREATE record (the image begins at address 0)."""
    record = (built / "build" / "enclave.sgxs").open("rb")
    with record:
        head = record.read(64)
    if head[:8] != b"ECREATE\0":
        raise StrongroomError(f"{built} is no enclave image", "remove it and try again")
    return int.from_bytes(head[12:20], "little")
