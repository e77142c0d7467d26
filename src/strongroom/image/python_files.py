"""What a Python program takes inside: interpreter, standard library, distributions, the project, shared libraries.

There is no import tracing. Inside paths are fixed: ``/usr/bin/python3``, ``/usr/lib/pythonX.Y``,
``/usr/lib/pythonX.Y/site-packages``, ``/app``. Left out, and why: byte code and caches (we compile our own), tests of
the standard library, IDLE, Turtle's demo, Tk (there is no display), ensurepip (nothing is installed inside), NIS,
static libraries, and of a distribution's metadata what tells of this machine (RECORD, INSTALLER,
direct_url.json, scripts).
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import strongroom
from strongroom.errors import StrongroomError
from strongroom.image import elf, libraries
from strongroom.image.interpreter import Interpreter, Source, ask, compile_sources
from strongroom.image.manifest import Manifest
from strongroom.image.pack import PackFile
from strongroom.image.project import APP, Plan, Progress, excluded, file_mode, project_files

PYTHON = "/usr/bin/python3"
ENVIRONMENT = {
    "PYTHONHOME": "/usr", "PYTHONPLATLIBDIR": "lib", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
}  # fmt: skip
SKIPPED = (
    "test", "idlelib", "turtledemo", "ensurepip", "tkinter", "*/test", "*/tests", "config-*", "site-packages",
    "dist-packages", "lib-dynload", "sitecustomize.py", "usercustomize.py", "EXTERNALLY-MANAGED", "lib2to3/*.pickle",
    "*.pyc", "*.a", "*.o", "__pycache__", "*/__pycache__",
)  # fmt: skip
SKIPPED_MODULES = (
    "_test*", "_ctypes_test*", "_xxtestfuzz*", "xxlimited*", "xxsubtype*", "_tkinter*", "nis.*", "ossaudiodev*",
)  # fmt: skip
# Of a *.dist-info folder: what says where, how and by whom it was installed here.
SKIPPED_METADATA = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s"}
)
SITE = """# Made by Strongroom: some distributions of Python look for packages elsewhere.
import site
import sys

if {path!r} not in sys.path:
    site.addsitedir({path!r})
"""


def plan(found: Manifest, project: Path, python: str | None, say: Progress) -> Plan:
    """Everything for ``python3 …/strongroom/inside/__main__.py /app/MAIN``. Raises StrongroomError."""
    main = f"{APP}/{found.main}"
    bare = not found.main.endswith(".py")
    by = ask(python)
    library = f"/usr/lib/{by.name}"
    site = f"{library}/site-packages"
    say(f"collecting CPython {by.version}")
    library_files = dict(standard_library(by, library))
    modules = dict(extension_modules(by, library))
    packages = dict(distribution_files(found.packages, by, site)) | dict(own_package(site))
    project_part = dict(project_files(project, excluded(found)))
    if not bare and main not in project_part:
        raise StrongroomError(
            f"main = {found.main!r} is not a file of {project}", "name a file of the project"
        )
    _refuse_twice((library_files, modules, packages, project_part))
    files = library_files | modules | packages | project_part

    say(f"compiling {sum(path.endswith('.py') for path in files)} modules")
    sources = [Source(host, path) for path, host in files.items() if path.endswith(".py")]
    compiled, failed = compile_sources(by, sources)
    result = Plan()
    result.env |= ENVIRONMENT
    for host, text in failed.items():
        if not bare and host == project_part.get(main):
            raise StrongroomError(
                f"{project / found.main} does not compile ({text})", "correct it and build again"
            )
        if host.is_relative_to(project.resolve()):
            result.notes.append(f"{host.relative_to(project.resolve())} does not compile ({text})")
    result.files = [
        PackFile(path, host, file_mode(host) if path in project_part else 0o644)
        for path, host in files.items()
    ]
    result.files += [PackFile(_pyc(path, by.cache_tag), host) for path, host in compiled.items()]
    result.files.append(PackFile(f"{library}/sitecustomize.py", SITE.format(path=site).encode()))
    result.files.append(PackFile(f"/usr/bin/{by.name}", target="python3"))

    say("following shared libraries")
    result.objects = _objects(by, files, modules, result.notes)
    result.program, result.interpreter = PYTHON, libraries.INTERPRETER
    # The package's main runs the program, then serves the functions that it exported, if any. By its path: what -m
    # imports costs every start 6 ms.
    result.argv = (PYTHON,) if bare else (PYTHON, f"{site}/strongroom/inside/__main__.py", main)
    return result


def _pyc(path: str, tag: str) -> str:
    """PEP 3147's place of the byte code."""
    one = PurePosixPath(path)
    return str(one.parent / "__pycache__" / f"{one.stem}.{tag}.pyc")


def _refuse_twice(parts: tuple[dict[str, Path], ...]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        for path, host in part.items():
            if path in seen:
                raise StrongroomError(
                    f"two files want to be {path} inside ({seen[path]} and {host})", "leave one of them out"
                )
            seen[path] = host


def standard_library(by: Interpreter, inside: str) -> Iterator[tuple[str, Path]]:
    """The whole standard library's files, without SKIPPED."""
    for directory, names, files in os.walk(by.stdlib):
        relative = os.path.relpath(directory, by.stdlib)
        prefix = "" if relative == "." else relative + "/"
        names[:] = sorted(name for name in names if not _skipped(prefix + name, SKIPPED))
        for name in sorted(files):
            if not _skipped(prefix + name, SKIPPED):
                yield f"{inside}/{prefix}{name}", Path(directory, name)


def extension_modules(by: Interpreter, inside: str) -> Iterator[tuple[str, Path]]:
    """The standard library's extension modules."""
    if by.dynload.is_dir():
        for host in sorted(by.dynload.iterdir()):
            if host.name.endswith(".so") and not _skipped(host.name, SKIPPED_MODULES):
                yield f"{inside}/lib-dynload/{host.name}", host


def _skipped(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, one) for one in patterns)


def own_package(site: str) -> Iterator[tuple[str, Path]]:
    """The part of Strongroom that a program imports inside."""
    root = Path(strongroom.__file__).resolve().parent
    hosts = [root / "__init__.py", *sorted((root / "inside").rglob("*.py"))]
    for host in hosts:
        yield f"{site}/strongroom/{host.relative_to(root)}", host


def distributions(wanted: tuple[str, ...], by: Interpreter) -> list[metadata.Distribution]:
    """The named distributions and what they require here, sorted by name. Raises StrongroomError for a missing one."""
    installed: dict[str, metadata.Distribution] = {}
    for one in metadata.distributions(path=[str(path) for path in by.site_directories]):
        name = one.metadata["Name"]
        if name:
            installed.setdefault(canonicalize_name(name), one)
    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "enclave.toml") for text in wanted]
    while todo:
        need, whose = todo.pop()
        name = canonicalize_name(need.name)
        if name == "strongroom":
            continue  # its part for the inside is in every image
        distribution = installed.get(name)
        if distribution is None or not need.specifier.contains(distribution.version, prereleases=True):
            have = (
                f"is not installed for {by.executable}"
                if distribution is None
                else f"is {distribution.version}"
            )
            asked = "" if whose == "enclave.toml" else f" (needed by {whose})"
            raise StrongroomError(
                f"the package {need.name}{need.specifier}{asked} {have}", f"run `{_pip(by)} install '{need}'`"
            )
        found[name] = distribution
        for extra in ("", *sorted(need.extras)):
            if (name, extra) not in done:
                done.add((name, extra))
                todo += [(one, need.name) for one in _requirements(distribution, extra, by)]
    return [found[name] for name in sorted(found)]


def _pip(by: Interpreter) -> str:
    for directory in by.site_directories:
        program = directory.parent.parent.parent / "bin" / "python"
        if program.exists() and (directory.parent.parent.parent / "pyvenv.cfg").exists():
            return f"{program} -m pip"
    return f"{by.executable} -m pip"


def _requirements(distribution: metadata.Distribution, extra: str, by: Interpreter) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue  # the metadata of something old; pip installed it all the same
        if need.marker is None:
            if not extra:
                yield need
        elif need.marker.evaluate({**by.environment, "extra": extra}):
            if not extra or not need.marker.evaluate({**by.environment, "extra": ""}):
                yield need


def distribution_files(wanted: tuple[str, ...], by: Interpreter, site: str) -> Iterator[tuple[str, Path]]:
    """The files of the named distributions and of what they require, by their RECORD."""
    for one in distributions(wanted, by):
        name = one.metadata["Name"]
        listed = one.files
        again = f"run `{_pip(by)} install --force-reinstall {name}`"
        if not listed:
            raise StrongroomError(f"the package {name} does not say which files are its own", again)
        if _editable(one):
            raise StrongroomError(f"the package {name} is installed in editable form", again)
        for path in sorted(listed, key=str):
            parts = path.parts
            if ".." in parts or path.is_absolute() or "__pycache__" in parts:
                continue  # scripts and data outside site-packages; byte code
            if parts[0].endswith(".dist-info") and (path.name in SKIPPED_METADATA or path.suffix == ".pyc"):
                continue
            host = Path(str(path.locate()))
            if not host.is_file():
                raise StrongroomError(f"the package {name} lacks its file {path}", again)
            yield f"{site}/{path.as_posix()}", host


def _editable(one: metadata.Distribution) -> bool:
    return '"editable": true' in (one.read_text("direct_url.json") or "")


def _objects(
    by: Interpreter, files: dict[str, Path], modules: dict[str, Path], notes: list[str]
) -> dict[str, libraries.Object]:
    """The interpreter, every extension module and library in the packages, and what they need."""
    shared = {path: host for path, host in files.items() if _is_shared(path, host)}
    closure = libraries.Closure({host: path for path, host in shared.items()})
    main = closure.add(PYTHON, by.executable)
    # glibc opens libgcc_s by name when a thread ends or unwinds.
    libgcc = libraries.find("libgcc_s.so.1", (main,))
    if libgcc is not None:
        closure.add(f"{libraries.LIBRARY_DIRECTORY}/libgcc_s.so.1", libgcc, chain=(main,))
    for path, host in sorted(shared.items()):
        try:
            closure.add(path, host, chain=(main,))
        except (libraries.MissingLibrary, elf.ElfError) as error:
            # An optional backend of a package: it will not import inside, as it does not here.
            notes.append(f"{path} cannot be loaded inside: {error.message}")
    return closure.objects


def _is_shared(path: str, host: Path) -> bool:
    if ".so" not in PurePosixPath(path).name:
        return False
    with host.open("rb") as file:
        head = file.read(18)
    return elf.is_elf(head) and head[16:18] == b"\x03\x00"
