"""What a Python program takes inside (strongroom.image.python_files, .interpreter): complete, and of no one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.errors import StrongroomError
from strongroom.image import boot, pack
from strongroom.image.build import FACTS, PACK
from strongroom.image.interpreter import Interpreter, Source, ask, compile_sources
from strongroom.image.python_files import _requirements, distribution_files, distributions, standard_library
from strongroom.machine import level, linux

from .conftest import Build
from .test_build import boot_of, entries_of

MAIN = 'main = "score.py"\n'


@pytest.fixture(scope="module")
def ours() -> Interpreter:
    return ask(None)


def test_interpreter_is_the_real_program(ours: Interpreter) -> None:
    assert ours.executable.read_bytes()[:4] == b"\x7fELF"
    assert ours.version == ".".join(str(part) for part in sys.version_info[:3])
    assert (ours.stdlib / "os.py").is_file()
    assert any(path.name in ("site-packages", "dist-packages") for path in ours.site_directories)


def test_interpreter_behind_a_script(ours: Interpreter, tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text(f'#!/bin/sh\nexec {ours.executable} "$@"\n')
    shim.chmod(0o755)
    assert ask(str(shim)).executable == ours.executable


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n"])
def test_no_interpreter(tmp_path: Path, text: str) -> None:
    bad = tmp_path / "python"
    bad.write_text(text)
    bad.chmod(0o755)
    with pytest.raises(
        StrongroomError, match=r"cannot use .* as the interpreter .*: name a CPython with --python"
    ):
        ask(str(bad))
    with pytest.raises(StrongroomError, match=r"cannot use .*none as the interpreter"):
        ask(str(tmp_path / "none"))


def test_old_python_is_refused(ours: Interpreter, tmp_path: Path) -> None:
    shim = tmp_path / "python"
    shim.write_text(f'#!/bin/sh\n{ours.executable} "$@" | sed \'s/"version": "3[^"]*/"version": "3.9.1/\'\n')
    shim.chmod(0o755)
    with pytest.raises(StrongroomError, match=r"is CPython 3\.9\.1: name CPython 3\.11 or later"):
        ask(str(shim))


def test_standard_library_is_whole_but_for_what_is_named(ours: Interpreter) -> None:
    files = dict(standard_library(ours, "/lib"))
    for path in (
        "/lib/os.py",
        "/lib/json/decoder.py",
        "/lib/asyncio/base_events.py",
        "/lib/encodings/utf_8.py",
    ):
        assert path in files
    assert not [
        path for path in files if path.endswith(".pyc") or "__pycache__" in path or "site-packages" in path
    ]
    assert not [path for path in files if path.startswith(("/lib/test/", "/lib/idlelib/", "/lib/ensurepip/"))]


def run_in(root: Path, info: boot.BootInfo) -> subprocess.CompletedProcess[bytes]:
    """Run an image's program in a folder that holds its pack and nothing else, with its arguments and environment."""

    def enter() -> None:
        if os.geteuid():  # the right to change the root, in a namespace of its own
            linux.unshare(linux.CLONE_NEWUSER)
        os.chroot(root)
        os.chdir(info.cwd_path)

    return subprocess.run(
        list(info.argv), env=dict(one.split("=", 1) for one in info.env), capture_output=True, timeout=60, check=False,
        preexec_fn=enter,
    )  # fmt: skip


def unpack(folder: Path, root: Path) -> None:
    blob = (folder / PACK).read_bytes()
    for entry in pack.read_index(blob):
        path = root / entry.path.lstrip("/")
        if entry.kind == pack.KIND_DIRECTORY:
            path.mkdir(exist_ok=True, parents=True)
        elif entry.kind == pack.KIND_SYMLINK:
            path.symlink_to(entry.target)
        else:
            path.write_bytes(pack.read_file(blob, entry))
            path.chmod(entry.mode)


PROGRAM = """
import sys, ssl, sqlite3, ctypes, hashlib, decimal, asyncio, email.message, lzma, bz2, zoneinfo, helper
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import cryptography
print(AESGCM(bytes(16)).encrypt(bytes(12), b"text", None).hex())
print(sys.executable, sys.prefix, sys.flags.dont_write_bytecode, sys.flags.no_user_site, sys.argv)
print(cryptography.__file__, helper.__file__, helper.__cached__, __name__)
print([path for path in sys.path])
import importlib.metadata
print(importlib.metadata.version("cryptography"))
raise ValueError("said")
"""


@pytest.mark.skipif(
    os.geteuid() != 0 and not level.find_facts().user_namespaces,
    reason="root or a user namespace changes the root",
)
def test_the_pack_alone_runs_the_program(image: Build, tmp_path: Path, ours: Interpreter) -> None:
    pytest.importorskip("cryptography")
    files: dict[str, str | bytes] = {"score.py": PROGRAM, "helper.py": "VALUE = 1\n"}
    result = image(tmp_path / "p", files, MAIN + 'packages = ["cryptography"]\n')
    root = tmp_path / "root"
    unpack(result.directory, root)
    (root / "dev").mkdir()
    (root / "dev" / "urandom").write_bytes(os.urandom(64))
    (root / "tmp").mkdir()
    done = run_in(root, boot_of(result.directory))
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 5, done.stderr.decode()
    tag = ours.cache_tag
    assert lines[1] == "/usr/bin/python3 /usr 1 1 ['/app/score.py']"
    assert lines[2] == (
        f"/usr/lib/{ours.name}/site-packages/cryptography/__init__.py /app/helper.py "
        f"/app/__pycache__/helper.{tag}.pyc __main__"
    )
    assert "'/app'" in lines[3] and str(tmp_path) not in lines[3] and "dist-packages" not in lines[3]
    # A traceback shows inside paths and the source line.
    error = done.stderr.decode()
    assert 'File "/app/score.py", line 11, in <module>' in error and 'raise ValueError("said")' in error
    assert done.returncode == 1
    assert not list(root.glob("app/__pycache__/*score*.pyc.*"))


def test_nothing_of_the_host_is_in(image: Build, tmp_path: Path, ours: Interpreter) -> None:
    result = image(tmp_path / "p", {"score.py": "print(1)\n", "sub/mod.py": "x = 1\n"}, MAIN)
    blob = (result.directory / PACK).read_bytes()
    entries = entries_of(result.directory)
    home = os.path.expanduser("~")
    for path, entry in entries.items():
        # How the interpreter was configured is a file of its own distribution, the same wherever that is installed.
        if path.endswith(".pyc") and "_sysconfigdata" not in path:
            content = pack.read_file(blob, entry)
            assert content[4:8] == b"\1\0\0\0", "a hash, not checked (PEP 552)"
            assert os.fsencode(tmp_path) not in content
            if ours.stdlib != Path("/usr/lib", ours.name):  # Debian's has the inside path
                assert os.fsencode(ours.stdlib) + b"/" not in content
        assert entry.mode in (0o644, 0o755)
    assert f"/app/sub/__pycache__/mod.{ours.cache_tag}.pyc" in entries
    facts = (result.directory / FACTS).read_text()
    assert str(tmp_path) not in facts and (home == "/" or home + "/" not in facts)
    json.loads(facts)


def test_same_measurement_with_a_cold_cache_elsewhere(
    image: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, str | bytes] = {
        "score.py": "import b\n",
        "b.py": "def f(x: int = 1000): return {'a', 'b', x}\n",
    }
    first = image(tmp_path / "one", files, MAIN)
    for variable in ("HOME", "STRONGROOM_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    second = image(tmp_path / "deep" / "er" / "two", files, MAIN)
    assert second.mrenclave == first.mrenclave


def test_byte_code_depends_on_the_source_alone(ours: Interpreter, tmp_path: Path) -> None:
    """Marshal writes references by use counts, which other modules in the process could change."""
    names = [
        "os",
        "typing",
        "dataclasses",
        "enum",
        "json/decoder",
        "email/_header_value_parser",
        "decimal",
        "inspect",
    ]
    sources = [Source(ours.stdlib / f"{name}.py", f"/usr/lib/x/{name}.py") for name in names]
    sources = [one for one in sources if one.host.is_file()]
    one, _ = compile_sources(ours, sources, tmp_path / "one")
    for number, source in enumerate(reversed(sources)):
        alone, _ = compile_sources(ours, [source], tmp_path / f"alone{number}")
        assert alone[source.inside].read_bytes() == one[source.inside].read_bytes(), source.inside


def test_main_that_does_not_compile(image: Build, tmp_path: Path) -> None:
    with pytest.raises(StrongroomError, match=r"score.py does not compile \(line 2: .*\): correct it"):
        image(tmp_path / "p", {"score.py": "x = 1\nif\n"}, MAIN)
    result = image(tmp_path / "q", {"score.py": "x = 1\n", "template.py": "{{ x }} y\n"}, MAIN)
    assert any("template.py does not compile" in note for note in result.notes)


def test_missing_package_names_the_line(image: Build, tmp_path: Path) -> None:
    with pytest.raises(
        StrongroomError,
        match=r"the package no-such-thing is not installed for .*: run `.* -m pip install 'no-such-thing'`",
    ):
        image(tmp_path / "p", {"score.py": ""}, MAIN + 'packages = ["no-such-thing"]')
    with pytest.raises(
        StrongroomError, match=r"the package cryptography<1 is \d+.*: run `.*install 'cryptography<1'`"
    ):
        image(tmp_path / "p", {"score.py": ""}, MAIN + 'packages = ["cryptography<1"]')


def make_distribution(site: Path, name: str, requires: tuple[str, ...] = (), **extra: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(f"name = {name!r}\n")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        + "".join(f"Requires-Dist: {one}\n" for one in requires)
    )
    for file, content in extra.items():
        (info / file.replace("__", ".")).write_text(content)
    (info / "RECORD").write_text(
        f"{name}.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n{info.name}/INSTALLER,,\n../../bin/{name},,\n"
        f"__pycache__/{name}.cpython-311.pyc,,\n"
    )
    (info / "INSTALLER").write_text("pip")


def with_site(by: Interpreter, site: Path) -> Interpreter:
    from dataclasses import replace

    return replace(by, site_directories=(site,))


def test_what_a_package_requires_comes_with_it(ours: Interpreter, tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3" / "site-packages"
    make_distribution(
        site,
        "a",
        ("b>=1", "c ; extra == 'more'", "d ; sys_platform == 'win32'", "e ; python_version >= '3.8'"),
    )
    for name, needs in (("b", ("a",)), ("c", ()), ("d", ()), ("e", ()), ("f", ())):
        make_distribution(site, name, needs)
    by = with_site(ours, site)
    assert [one.metadata["Name"] for one in distributions(("a",), by)] == ["a", "b", "e"]
    assert [one.metadata["Name"] for one in distributions(("A[more]",), by)] == ["a", "b", "c", "e"]
    found = dict(distribution_files(("c",), by, "/site"))
    assert found == {
        "/site/c.py": site / "c.py",
        "/site/c-1.0.dist-info/METADATA": site / "c-1.0.dist-info/METADATA",
    }
    (a,) = (one for one in distributions(("a",), by) if one.metadata["Name"] == "a")
    assert {need.name for need in _requirements(a, "more", by)} == {"c"}
    (site / "e.py").unlink()
    with pytest.raises(
        StrongroomError, match=r"the package e lacks its file e.py: run `.*--force-reinstall e`"
    ):
        dict(distribution_files(("a",), by, "/site"))


def test_editable_package_is_refused(ours: Interpreter, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    make_distribution(site, "dev", direct_url__json='{"url": "file:///x", "dir_info": {"editable": true}}')
    with pytest.raises(StrongroomError, match="the package dev is installed in editable form"):
        dict(distribution_files(("dev",), with_site(ours, site), "/site"))


def test_bare_interpreter(image: Build, tmp_path: Path) -> None:
    result = image(tmp_path / "p", {}, 'main = "python3"\nargs = ["-c", "print(6*7)"]\n')
    assert boot_of(result.directory).argv == ("/usr/bin/python3", "-c", "print(6*7)")
