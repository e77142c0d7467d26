"""Shared libraries: what a program needs (DT_NEEDED, closed), found on the host as ld.so(8) would.

Inside, a library that lies in a folder which the image keeps (a package with its ``*.libs``) stays there; every other
one becomes ``/lib/x86_64-linux-gnu/SONAME``, wherever the host has it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from strongroom.errors import StrongroomError
from strongroom.image.elf import Elf, ElfError, is_elf, parse

LIBRARY_DIRECTORY = "/lib/x86_64-linux-gnu"
INTERPRETER = "/lib64/ld-linux-x86-64.so.2"
# ld.so's own list (ld.so(8)) and the multiarch folders that Debian compiles in.
DEFAULT_DIRECTORIES = (
    "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
)  # fmt: skip
_CACHE_LINE = re.compile(r"^\s+(\S+) \((.*)\) => (.+)$")


class MissingLibrary(StrongroomError):
    """A shared library that something needs is not on this machine."""

    def __init__(self, needed: str, by: str) -> None:
        super().__init__(
            f"{by} needs {needed}, which is not on this machine", "install the package that has it"
        )
        self.needed = needed


@dataclass(frozen=True)
class Object:
    """An ELF file with its inside path and where the host has it."""

    path: str
    host: Path
    elf: Elf


@lru_cache(maxsize=1)
def cache() -> dict[str, str]:
    """The 64-bit entries of ld.so's cache, soname -> path; the first one wins. Empty where there is no ldconfig."""
    found: dict[str, str] = {}
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"):
        try:
            done = subprocess.run(
                [program, "-p"], capture_output=True, text=True, errors="surrogateescape", timeout=30, check=False,
                env={"LC_ALL": "C", "PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        for line in done.stdout.splitlines():
            match = _CACHE_LINE.match(line)
            # hwcaps variants run on some processors only: the image holds the one for all.
            if match and "x86-64" in match[2] and "hwcap" not in match[2]:
                found.setdefault(match[1], match[3])
        if done.returncode == 0:
            break
    return found


def _is_usable(path: Path) -> bool:
    """Whether ``path`` is a 64-bit ELF file for this machine; ld.so skips others in its search."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    return is_elf(head) and head[4:6] == b"\x02\x01" and head[18:20] == b"\x3e\x00"


def _expand(directories: Iterable[str], origin: Path) -> Iterable[Path]:
    for text in directories:
        for word in ("$ORIGIN", "${ORIGIN}"):
            text = text.replace(word, str(origin))
        for word, value in (
            ("$LIB", "lib64"),
            ("${LIB}", "lib64"),
            ("$PLATFORM", "x86_64"),
            ("${PLATFORM}", "x86_64"),
        ):
            text = text.replace(word, value)
        if text.startswith("/"):
            yield Path(text)


def find(needed: str, chain: tuple[Object, ...]) -> Path | None:
    """The host path of ``needed`` for the last object of ``chain`` (who loaded whom), or None."""
    by = chain[-1]
    if "/" in needed:
        path = Path(needed)
        return path if path.is_absolute() and _is_usable(path) else None
    searched: list[Path] = []
    if not by.elf.runpath:
        for loader in reversed(chain):
            if not loader.elf.runpath:
                searched += _expand(loader.elf.rpath, loader.host.parent)
    searched += _expand(by.elf.runpath, by.host.parent)
    for directory in searched:
        if _is_usable(directory / needed):
            return directory / needed
    cached = cache().get(needed)
    if cached and _is_usable(Path(cached)):
        return Path(cached)
    for name in DEFAULT_DIRECTORIES:
        if _is_usable(Path(name) / needed):
            return Path(name) / needed
    return None


def load(host: Path) -> Elf:
    """Read and parse an ELF file of the host. Raises StrongroomError."""
    try:
        data = host.read_bytes()
    except OSError as error:
        raise StrongroomError(
            f"cannot read {host} ({error.strerror})", "make it readable, or leave it out"
        ) from error
    return parse(data, str(host))


class Closure:
    """Collects objects and what they need. ``kept`` maps host paths (resolved) to inside paths of kept folders."""

    def __init__(self, kept: dict[Path, str] | None = None) -> None:
        self.objects: dict[str, Object] = {}
        self._kept = kept or {}

    def add(self, path: str, host: Path, elf: Elf | None = None, chain: tuple[Object, ...] = ()) -> Object:
        """Add one object and, recursively, its libraries. Raises MissingLibrary and others; then nothing was added."""
        before = dict(self.objects)
        try:
            return self._add(path, host, elf, chain)
        except StrongroomError:
            self.objects = before
            raise

    def _add(self, path: str, host: Path, elf: Elf | None, chain: tuple[Object, ...]) -> Object:
        known = self.objects.get(path)
        if known is not None:
            if (
                known.host != host
                and known.host.resolve() != host.resolve()
                and known.elf.data != load(host).data
            ):
                raise StrongroomError(
                    f"two different libraries want to be {path} inside ({known.host} and {host})",
                    "use packages that are built for one another",
                )
            return known
        one = Object(path, host, elf if elf is not None else load(host))
        self._check(one)
        self.objects[path] = one
        chain = (*chain, one)
        if one.elf.interpreter is not None:
            if PurePosixPath(one.elf.interpreter).name != PurePosixPath(INTERPRETER).name:
                raise ElfError(
                    f"{host} wants the loader {one.elf.interpreter}",
                    "build it for glibc, or link it statically",
                )
            self._add(INTERPRETER, Path(one.elf.interpreter), None, chain)
        for needed in one.elf.needed:
            if needed == PurePosixPath(INTERPRETER).name:
                self._add(INTERPRETER, find(needed, chain) or Path(INTERPRETER), None, chain)
                continue
            found = find(needed, chain)
            if found is None:
                raise MissingLibrary(needed, str(host))
            self._add(self._inside(needed, found), found, None, chain)
        return one

    def _inside(self, needed: str, found: Path) -> str:
        kept = self._kept.get(found) or self._kept.get(found.resolve())
        return kept if kept is not None else f"{LIBRARY_DIRECTORY}/{PurePosixPath(needed).name}"

    @staticmethod
    def _check(one: Object) -> None:
        if any(name.startswith(("libc.musl-", "ld-musl-")) for name in one.elf.needed):
            raise ElfError(f"{one.host} is built for musl", "build it for glibc, or link it statically")
