"""The documentation says what the program does: commands, links, folders, and tables made from the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("examples/**/*.md"),
    ]
)


def strongroom(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "strongroom", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def shell_lines(page: Path) -> list[list[str]]:
    """Words of each command in the ``sh`` blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [words for page in PAGES for words in shell_lines(page)]
OF_STRONGROOM = [words[1:] for words in COMMANDS if words[0].endswith("strongroom")]
OF_MAKE = [words[1:] for words in COMMANDS if words[0] == "make"]


def test_there_is_something_to_check() -> None:
    assert len(OF_STRONGROOM) >= 5
    assert ["demo"] in OF_MAKE


@pytest.mark.parametrize("words", OF_STRONGROOM, ids=" ".join)
def test_commands_of_the_pages_are_the_programs(words: list[str]) -> None:
    """The verb exists, and each option named is one that its help lists."""
    bare = [word for word in words if not word.startswith("-")]
    verb = bare[:2] if bare[0] in {"vm", "daemon"} else bare[:1]
    done = strongroom(*verb, "--help")
    assert done.returncode == 0, done.stderr
    for option in [word.split("=")[0] for word in words if word.startswith("--") and word != "--"]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", done.stdout), (
            f"{option} is not in the help"
        )


@pytest.mark.parametrize("words", OF_MAKE, ids=" ".join)
def test_make_targets_of_the_pages_exist(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(word in targets for word in words if "=" not in word)


def test_every_target_has_its_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()[1:]
    done = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert set(re.findall(r"^  make (\w+)", done.stdout, re.MULTILINE)) == set(phony)


def test_help_lists_every_verb_with_a_line() -> None:
    from strongroom.cli.main import verbs

    shown = strongroom("--help").stdout
    for verb in verbs():
        assert re.search(rf"\b{re.escape(verb)}\s+\S+", shown), verb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:src|native|libos|tests|tools|attacks|examples|docs)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for folder in tracked - {"build", "dist", "src", "docs"}:
        assert f"`{folder}/" in text, f"{folder}/ is not on the map"


def test_the_pages_promise_no_more_than_the_machine() -> None:
    """Results are met, refused, got or not tried. These words are for nobody's enclave."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").lower()
        for word in ("impossible", "unbreakable", "nobody can", "fully secure", "guaranteed"):
            assert word not in text, f"{page.name}: {word}"


def test_the_first_words_of_the_threat_model() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    assert text.split("\n\n")[1].startswith("**The host's root can read the fuses")


def test_dependencies_have_their_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    for need in wanted:
        name = re.split(r"[\[><=~! ]", need)[0].lower()
        assert name == "strongroom" or re.search(rf"\b{re.escape(name)}\b", listed), name


def test_pins_cover_what_the_project_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "requirements-dev.lock").read_text().splitlines()
        if "==" in line
    }
    for need in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = re.split(r"[\[><=~! ]", need)[0].lower()
        assert name == "strongroom" or name in pinned, name


def test_the_table_of_system_calls_is_the_codes() -> None:
    """docs/syscalls.md is what tools/syscall_table.py prints; numbers ascend and are those of the kernel's header."""
    import runpy

    tool = runpy.run_path(str(ROOT / "tools" / "syscall_table.py"))
    if not tool["TABLE"].is_file():
        pytest.skip("libos/sys/table.h is not there yet")
    text = tool["TABLE"].read_text(encoding="utf-8")
    renew = "run tools/syscall_table.py > docs/syscalls.md"
    assert tool["page"](text) == (ROOT / "docs" / "syscalls.md").read_text(encoding="utf-8"), renew
    found = tool["entries"](text)
    numbers = [number for number, *_ in found]
    assert numbers == sorted(set(numbers))
    assert all(note for _, _, level, note in found if level != "full"), "what is missing is said"
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if header.is_file():
        known = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
        assert all(int(known[name]) == number for number, name, *_ in found)
