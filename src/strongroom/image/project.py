"""What a project brings: its folder's files, and, where main is an ELF program, the libraries that it needs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.image import elf, libraries, manifest, pack, sources

APP = "/app"
Progress = Callable[[str], None]
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": APP, "LANG": "C.UTF-8", "TMPDIR": "/tmp",
    "LD_LIBRARY_PATH": libraries.LIBRARY_DIRECTORY, "MALLOC_ARENA_MAX": "1",
}  # fmt: skip


@dataclass
class Plan:
    """What goes in, before it has addresses."""

    files: list[pack.PackFile] = field(default_factory=list)
    objects: dict[str, libraries.Object] = field(default_factory=dict)
    program: str = ""
    interpreter: str = ""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))
    notes: list[str] = field(default_factory=list)


def project_files(project: Path, exclude: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """(inside path, host path) of the project's files, sorted; without what ``sources`` and ``exclude`` name.

    Hidden files and virtual environments are left out too. A symbolic link is followed when it stays in the project.
    Raises StrongroomError for one that does not, and for what is neither file nor folder.
    """
    root = project.resolve()

    def walk(directory: Path, inside: str) -> Iterator[tuple[str, Path]]:
        try:
            names = sorted(os.listdir(directory))
        except OSError as error:
            raise StrongroomError(
                f"cannot read {directory} ({error.strerror})", "make it readable"
            ) from error
        for name in names:
            host = directory / name
            if sources.left_out(name, f"{inside}/{name}"[len(APP) + 1 :], exclude):
                continue
            if host.is_symlink() and not host.resolve().is_relative_to(root):
                raise StrongroomError(f"{host} points out of the project", "copy the file, or exclude it")
            try:
                mode = host.stat().st_mode
            except OSError as error:
                raise StrongroomError(
                    f"cannot read {host} ({error.strerror})", "mend it, or exclude it"
                ) from error
            if stat.S_ISDIR(mode):
                if host.is_symlink():
                    raise StrongroomError(f"{host} is a link to a folder", "copy the folder, or exclude it")
                if not sources.apart(host):
                    yield from walk(host, f"{inside}/{name}")
            elif stat.S_ISREG(mode):
                if not sources.skipped_file(name):
                    yield f"{inside}/{name}", host
            else:
                raise StrongroomError(f"{host} is neither a file nor a folder", "take it out, or exclude it")

    return walk(root, APP)


def excluded(found: manifest.Manifest) -> tuple[str, ...]:
    """Patterns of what stays outside: the manifest's, and the host's side of encrypted and allowed files."""
    hosts = (one.host for one in found.files if one.kind not in ("trusted", "temporary"))
    return found.exclude + tuple(os.path.normpath(host) for host in hosts if not host.startswith("/"))


def file_mode(host: Path) -> int:
    """0755 for what its owner may execute, else 0644: nothing of umask or owner."""
    return 0o755 if host.stat().st_mode & stat.S_IXUSR else 0o644


def plan_program(found: manifest.Manifest, project: Path) -> Plan:
    """A project whose main is an ELF program, static or dynamic."""
    plan = Plan()
    inside = f"{APP}/{found.main}"
    host = project / found.main
    if not host.is_file():
        raise StrongroomError(
            f"main = {found.main!r} is not a file of {project}", "name a .py file or an ELF program"
        )
    program = libraries.load(host)
    shared: list[tuple[str, Path]] = []
    for path, one in project_files(project, excluded(found)):
        if path == inside:
            continue
        plan.files.append(pack.PackFile(path, one, file_mode(one)))
        if ".so" in one.name and _is_shared(one):
            shared.append((path, one))
    closure = libraries.Closure({one: path for path, one in shared})
    main = closure.add(inside, host, program)
    for path, one in shared:
        closure.add(path, one, chain=(main,))
    if main.elf.interpreter is not None:
        plan.interpreter = libraries.INTERPRETER
        libgcc = libraries.find(
            "libgcc_s.so.1", (main,)
        )  # glibc opens it by name to end and to trace threads
        if libgcc is not None:
            closure.add(f"{libraries.LIBRARY_DIRECTORY}/libgcc_s.so.1", libgcc, chain=(main,))
    plan.objects = closure.objects
    plan.program = inside
    plan.argv = (inside,)
    return plan


def _is_shared(host: Path) -> bool:
    with host.open("rb") as file:
        head = file.read(18)
    return elf.is_elf(head) and head[16:18] == b"\x03\x00"
