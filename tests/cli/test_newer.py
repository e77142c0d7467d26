"""A source that is newer than the image built of it is named, and nothing else is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.image import sources
from support.interpreter_image import build, daemon_ended, strongroom

MANIFEST = """[enclave]
main = "main.py"
memory = "16M"
threads = 1
exclude = ["host.py"]
[files]
"/facts" = "trusted:{trusted}"
"/out" = "allowed:out"
"/sealed" = "encrypted:sealed"
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    programs = tmp_path_factory.mktemp("newer")
    trusted = tmp_path_factory.mktemp("trusted")
    (trusted / "one").write_text("1")
    (programs / "main.py").write_text("print('ran')\n")
    (programs / "host.py").write_text("")
    for name in ("lib", "out", "sealed", ".git", "venv"):
        (programs / name).mkdir()
        (programs / name / "x.py").write_text("")
    (programs / "venv" / "pyvenv.cfg").write_text("")
    for folder in (programs, *programs.parents[:2]):
        folder.chmod(0o755)
    return build(programs, tmp_path_factory.mktemp("project") / "p", MANIFEST.format(trusted=trusted))


def facts(project: Path) -> Any:
    return json.loads((project / "build" / "enclave.json").read_text())


def trusted(project: Path) -> Path:
    return Path(next(one["host"] for one in facts(project)["manifest"]["files"] if one["kind"] == "trusted"))


def newer(project: Path) -> Path | None:
    return sources.newer(project / "build", facts(project))


@pytest.fixture
def project(built: Path) -> Iterator[Path]:
    """As if it was built a minute ago, its sources an hour."""
    past = time.time() - 3600
    for folder in (built, trusted(built)):
        for path in folder.rglob("*"):
            os.utime(path, (past, past))
    os.utime(built / "build" / "enclave.sig", (past + 3540, past + 3540))
    yield built


def test_what_counts(project: Path) -> None:
    assert newer(project) is None
    for name in ("main.py", "enclave.toml", "lib/x.py", f"{trusted(project)}/one"):
        path = project / name
        before = path.stat().st_mtime_ns
        os.utime(path)
        assert newer(project) == path, name
        os.utime(path, ns=(before, before))
    new = project / "lib" / "new.py"
    new.write_text("")
    assert newer(project) == new
    new.unlink()
    assert newer(project) is None


def test_what_does_not(project: Path) -> None:
    for name in ("host.py", "out/x.py", "sealed/x.py", ".git/x.py", "venv/x.py", "build/enclave.json"):
        os.utime(project / name)
        assert newer(project) is None, name
    future = time.time() + 1000  # another machine's clock: it would be newer than every image
    os.utime(project / "main.py", (future, future))
    assert newer(project) is None
    os.utime(project / "main.py")
    assert newer(project) is not None
    (project / "enclave.toml").rename(project / "away")  # an image beside no project
    assert newer(project) is None
    (project / "away").rename(project / "enclave.toml")
    for strange in (
        {},
        {"manifest": []},
        {"manifest": {"files": 1, "exclude": {}}},
        {"manifest": {"files": [1]}},
    ):
        sources.newer(project / "build", strange)


def test_the_line(project: Path) -> None:
    said = f"strongroom: {project}/main.py is newer than the image built of it: run `strongroom build {project}`\n"
    with daemon_ended():
        quiet = strongroom("run", project)
        os.utime(project / "main.py")
        done = strongroom("run", project)
        told = strongroom("run", "--json", project)
    assert (quiet.returncode, quiet.stdout, quiet.stderr.count("\n")) == (0, "ran\n", 1)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.endswith(said) and done.stderr.count("\n") == 2
    assert json.loads(told.stderr.splitlines()[1]) == {"newer_than_image": f"{project}/main.py"}
    for verb in ("measure", "fit"):
        for folder in (project, project / "build"):
            done = strongroom(verb, "--json", folder)
            assert (done.returncode, done.stderr) == (0, said)
            assert json.loads(done.stdout)
