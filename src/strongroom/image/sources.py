"""What of a project's folder goes into its image, and whether some of it is newer than the image that was built."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "enclave.toml"
# Left out of the project's folder: what is not part of the program, differs between machines, or is a secret.
SKIPPED_DIRECTORIES = frozenset({"build", "__pycache__", "node_modules"})
# A folder with one of these is a virtual environment, or an image that we built.
SKIPPED_MARKS = ("pyvenv.cfg", "enclave.sgxs")
SKIPPED_FILES = ("*.pyc", "*.pem", "*.key", "*.p12", "*~", MANIFEST)
MOST_LOOKED_AT = 2000
"""Names that ``newer`` looks at before it gives up: 10 ms, where a start takes 200."""


def left_out(name: str, relative: str, exclude: tuple[str, ...]) -> bool:
    """Whether a file or folder is hidden, or one of ``exclude``."""
    return name.startswith(".") or any(
        fnmatch.fnmatchcase(relative, one) or fnmatch.fnmatchcase(name, one) for one in exclude
    )


def apart(folder: Path) -> bool:
    """Whether a folder is none of the program's: output, caches, a virtual environment, another image."""
    return folder.name in SKIPPED_DIRECTORIES or any((folder / mark).exists() for mark in SKIPPED_MARKS)


def skipped_file(name: str) -> bool:
    """Whether a file of this name stays outside wherever it lies."""
    return any(fnmatch.fnmatchcase(name, one) for one in SKIPPED_FILES)


def newer(folder: Path, facts: Mapping[str, Any]) -> Path | None:
    """A source of the image in ``folder`` that was written after it, or None; ``facts``: its enclave.json.

    Only times are compared: nothing is read. An image without its project around it has no sources; a file of the
    future tells nothing, and would be newer than every image. What is removed is not missed.
    """
    project = folder.parent
    manifest = facts.get("manifest")
    if not isinstance(manifest, dict) or not (project / MANIFEST).is_file():
        return None
    try:
        built, now = (folder / "enclave.sig").stat().st_mtime_ns, time.time_ns()
    except OSError:
        return None
    trusted, exclude = _from_facts(manifest)
    left = MOST_LOOKED_AT
    for path in _sources(project, trusted, exclude):
        left -= 1
        if left < 0:
            return None
        try:
            if built < path.stat().st_mtime_ns <= now:
                return Path(path)
        except OSError:
            continue
    return None


def _from_facts(manifest: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """Host paths of trusted mounts, and patterns of what stays outside."""
    trusted: list[str] = []
    files, exclude = manifest.get("files"), manifest.get("exclude")
    patterns = [one for one in exclude if isinstance(one, str)] if isinstance(exclude, list) else []
    for mount in files if isinstance(files, list) else []:
        if not isinstance(mount, dict):
            continue
        host, kind = str(mount.get("host") or mount.get("path")), mount.get("kind")
        if kind == "trusted":
            trusted.append(host)
        elif kind != "temporary" and not host.startswith("/"):
            patterns.append(os.path.normpath(host))
    return trusted, tuple(patterns)


def _sources(
    project: Path, trusted: list[str], exclude: tuple[str, ...]
) -> Iterator[Path | os.DirEntry[str]]:
    yield project / MANIFEST
    yield from _below(os.fspath(project), "", exclude)
    for host in trusted:
        path = project / host
        if path.is_dir():
            yield from _below(os.fspath(path), "", None)
        else:
            yield path


def _below(folder: str, relative: str, exclude: tuple[str, ...] | None) -> Iterator[os.DirEntry[str]]:
    """The files below a folder: of a project what goes in, of a trusted folder (``exclude`` None) everything."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        inside = f"{relative}{entry.name}"
        if exclude is not None and left_out(entry.name, inside, exclude):
            continue
        if entry.is_dir(follow_symlinks=False):
            if exclude is None or not apart(Path(entry.path)):
                yield from _below(entry.path, f"{inside}/", exclude)
        elif exclude is None or not skipped_file(entry.name):
            yield entry
