"""Dependencies point one way, as the Layout table of docs/architecture.md says: by imports, and by includes in C."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "strongroom"

# What each part may import of ours besides itself. COMMON is what everybody may import.
COMMON = {"errors", "paths"}
MAY_IMPORT: dict[str, set[str]] = {
    "isa": set(),
    "image": {"isa"},
    "machine": {"isa"},
    "attestation": {"isa"},
    "vm": {"machine", "isa"},
    "owner": {"attestation", "inside", "isa", "machine"},
    "services": {"attestation", "vm"},
    "inside": set(),
    "host": {"inside", "machine"},
    "cli": {"isa", "image", "machine", "attestation", "vm", "owner", "services", "inside", "host"},
    "errors": set(),
    "paths": set(),
    "__init__": {"host"},
    "__main__": {"cli"},
}
# Built, measured, inspected and verified on any system: no import of what needs Linux or a C build.
PORTABLE = ("isa", "image", "attestation")
# Code that is measured into an enclave brings nothing of the host's.
INSIDE_THIRD_PARTY = {"cryptography"}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[int, str]]:
    """Dotted names that ``path`` imports anywhere, relative ones resolved, with their lines."""
    package = ["strongroom", *path.relative_to(SOURCE).parts[:-1]]
    names: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*stem, *([node.module] if node.module else [])])
            names.append((node.lineno, base))
            names += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return names


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, (
        f"{part} is not in the Layout table: docs/architecture.md and MAY_IMPORT say what it may import"
    )
    allowed = MAY_IMPORT[part] | COMMON | {part}
    if part in ("inside", "isa"):
        allowed -= {"paths"}
    wrong = []
    for line, name in imported(path):
        pieces = name.split(".")
        if pieces[0] != "strongroom" or len(pieces) == 1:
            continue
        target = pieces[1]
        known = (SOURCE / target).is_dir() or (SOURCE / f"{target}.py").is_file()
        if known and target not in allowed:
            wrong.append(f"line {line}: {name}")
    assert not wrong, f"{part} may import {sorted(allowed)} only: {wrong}"


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "inside"], ids=lambda p: p.name)
def test_inside_brings_nothing_of_the_hosts(path: Path) -> None:
    wrong = [
        name
        for _, name in imported(path)
        if name.startswith("strongroom.") and not name.startswith("strongroom.inside")
    ]
    assert not wrong


@pytest.mark.parametrize(
    "path", [p for p in FILES if part_of(p) in PORTABLE], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_portable_parts_need_no_linux(path: Path) -> None:
    wrong = [
        name
        for _, name in imported(path)
        if name.split(".")[0] in {"fcntl", "termios", "pwd", "grp", "resource"}
    ]
    assert not wrong


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)


C_FILES = sorted(
    p for folder in ("native", "libos") for p in (ROOT / folder).rglob("*") if p.suffix in {".c", ".h", ".S"}
)


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_two_halves_share_no_header(path: Path) -> None:
    """The machine and the runtime meet at Linux's SGX interface only: no file of one includes a file of the other."""
    half = path.relative_to(ROOT).parts[0]
    other = ROOT / ("libos" if half == "native" else "native")
    for name in includes(path):
        beside = (path.parent / name).resolve()
        assert not beside.is_relative_to(other), f"{name} is of {other.name}"
        own = any(found.name == Path(name).name for found in (ROOT / half).rglob("*.[hSc]"))
        theirs = list(other.rglob(Path(name).name))
        assert own or not theirs, f"{name} is found in {other.name} only"


@pytest.mark.parametrize("half", ["native", "libos"])
def test_makefiles_name_no_folder_of_the_other_half(half: str) -> None:
    other = "libos" if half == "native" else "native"
    folder = ROOT / half
    if not (folder / "Makefile").is_file():
        pytest.skip(f"{half}/Makefile is not there yet")
    for makefile in folder.rglob("Makefile"):
        text = re.sub(r"build/native", "", makefile.read_text(encoding="utf-8"))
        assert not re.search(rf"-I\s*\S*{other}\b|\.\./{other}\b", text), f"{makefile} reaches into {other}/"


def test_layout_table_of_the_docs_is_this_one() -> None:
    """docs/architecture.md's table names each part and what it may import, and nothing else."""
    rows = re.findall(
        r"^\| `src/strongroom/([a-z]+)(?:\.py|/[^`]*)?` \|[^|]*\| ([^|]*) \|$",
        (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    table = {part: set(re.findall(r"[a-z]+", cell)) for part, cell in rows}
    for part, cell in table.items():
        expected = MAY_IMPORT[part]
        assert cell - {"nothing", "of", "ours"} == expected or (part == "cli" and cell == {"all"}), part
    there = {p.name for p in SOURCE.iterdir() if p.is_dir() and p.name not in {"__pycache__", "_native"}}
    assert there <= set(table), f"not in the table: {there - set(table)}"
