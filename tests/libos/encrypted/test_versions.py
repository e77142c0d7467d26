"""Sealed files across versions of program (ISVSVN) and microcode (CPUSVN), up and down, with both policies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.attestation.errors import TcbStatusRefused
from strongroom.attestation.policy import Strict
from strongroom.attestation.roots import Root
from strongroom.attestation.verify import Verified, verify_quote
from strongroom.image.signer import create_key_file
from strongroom.owner.sources import FromSoftwarePki
from support import interpreter_image as guest

PROGRAMS = Path(__file__).parent / "programs"
MANIFEST = """[enclave]
main = "python3"
memory = "24M"
args = true
key = "file:{key}"
product = {product}
svn = {svn}
debug = {debug}
[files]
"/own" = "encrypted:sealed:mrenclave:own"
"/sealed" = "encrypted:sealed:sealed"
"""
Read = Callable[[str, str], dict[str, list[str]]]


class Versions:
    """Images of one program and others; all of them work on the host's folder ``data``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        for name in ("one.pem", "other.pem"):
            create_key_file(folder / name)

    def image(
        self,
        name: str,
        *,
        key: str = "one.pem",
        product: int = 1,
        svn: int = 1,
        debug: bool = False,
        code: str = "",
    ) -> Path:
        project = self.folder / name
        project.mkdir()
        (project / "more.py").write_text(code)
        text = MANIFEST.format(key=self.folder / key, product=product, svn=svn, debug=str(debug).lower())
        guest.build(PROGRAMS, project, text)
        return project

    def use(self, project: Path) -> Path:
        """The project, with the host's folders as they are now."""
        for mount in ("own", "sealed"):
            (self.data / mount).mkdir(parents=True, exist_ok=True)
            if not (project / mount).is_symlink():
                shutil.rmtree(project / mount, ignore_errors=True)
                (project / mount).symlink_to(self.data / mount)
        return project

    def write(self, project: Path, mount: str, *names: str, vm: str = "default") -> None:
        said = guest.inside(self.use(project), "files.py", "write", mount, "100", "1", *names, vm=vm)
        assert said.startswith("written")

    def change(self, project: Path, mount: str, name: str) -> None:
        guest.inside(self.use(project), "files.py", "change", mount, "1", "2", name)

    def read(self, project: Path, mount: str, *names: str, vm: str = "default") -> list[str]:
        """The size of each file as read, or an errno."""
        said = guest.inside(self.use(project), "files.py", "read", mount, *names, vm=vm)
        return [line.split()[2] for line in said.splitlines()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    made = Versions(tmp_path_factory.mktemp("versions"))
    made.image("one")
    made.image("patched", svn=2)  # the same code: the same MRENCLAVE
    made.image("next", svn=2, code="fixed = True\n")
    made.image("product", product=2)
    made.image("signer", key="other.pem")
    made.image("debug", debug=True)
    return made


@pytest.fixture
def versions(images: Versions, strongroom_home: Path) -> Iterator[Versions]:
    shutil.rmtree(images.data, ignore_errors=True)
    with guest.daemon_ended():
        yield images


def test_program_versions(versions: Versions) -> None:
    """Older files open after an upgrade; what was written since is refused after the downgrade."""
    one, patched, later = (versions.folder / name for name in ("one", "patched", "next"))
    versions.write(one, "/sealed", "a", "b")
    versions.write(one, "/own", "a")
    assert versions.read(later, "/sealed", "a", "b") == ["100", "100"]
    assert versions.read(patched, "/own", "a") == ["100"], (
        "MRENCLAVE is the same, the key request's SVN is lower"
    )
    assert versions.read(later, "/own", "a") == ["EACCES"], "another MRENCLAVE"
    versions.write(later, "/sealed", "c")
    versions.change(later, "/sealed", "b")
    assert versions.read(one, "/sealed", "a", "b", "c") == ["100", "EACCES", "EACCES"]
    assert versions.read(later, "/sealed", "a", "b", "c") == ["100"] * 3, "the control"
    done = guest.strongroom("run", versions.use(one), "--", "/app/files.py", "read", "/sealed", "c")
    assert "/sealed/c is refused: it was sealed by a newer version of this program" in done.stderr


def test_sealing_keys_of_the_program(versions: Versions) -> None:
    """What ``seal`` asks for: the older request's key after an upgrade, none for the newer one before it."""
    one, later = versions.use(versions.folder / "one"), versions.use(versions.folder / "next")
    old, new = guest.inside(one, "sealing.py", "2").split(), guest.inside(later, "sealing.py", "2").split()
    assert (old[0], new[0]) == ("1", "2") and old[1] == new[1] == "01" * 16 and old[2] != new[2]
    assert guest.inside(later, "sealing.py", "2", *old[:2]).split() == old
    for request in (new[:2], [old[0], "02" * 16]):
        assert guest.inside(one, "sealing.py", "2", *request).startswith(
            "refused: the processor gives no such"
        )
    assert guest.inside(one, "sealing.py", "3").startswith("refused"), "no such policy"


def test_who_else_reads_nothing(versions: Versions) -> None:
    one = versions.folder / "one"
    versions.write(one, "/sealed", "a")
    versions.write(one, "/own", "a")
    for name in ("product", "signer", "debug"):
        for mount in ("/sealed", "/own"):
            # MRENCLAVE alone does not say who signed: the same image by another signer has the same key.
            expected = "100" if (name, mount) == ("signer", "/own") else "EACCES"
            assert versions.read(versions.folder / name, mount, "a") == [expected], (name, mount)
    assert guest.strongroom("vm", "create", "other").returncode == 0
    assert versions.read(one, "/sealed", "a", vm="other") == ["EACCES"], "other fuses"
    elsewhere = ("run", "--vm", "other", versions.use(one), "--", "/app/files.py", "read", "/sealed", "a")
    assert "or sealed on another VM or by another enclave" in guest.strongroom(*elsewhere).stderr
    assert versions.read(one, "/sealed", "a") == ["100"], "the control"
    # A file of one mount under the other's name.
    shutil.copy(versions.data / "sealed" / "a", versions.data / "own" / "a")
    assert versions.read(one, "/own", "a") == ["EACCES"]


def microcode(svn: int, *more: str) -> dict[str, object]:
    done = guest.strongroom("vm", "microcode", "default", "--svn", str(svn), "--json", *more)
    assert done.returncode == 0, done.stderr
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def verified(project: Path, statuses: frozenset[str] = frozenset({"UpToDate"})) -> Verified:
    quote = bytes.fromhex(guest.inside(project, "quoted.py"))
    root = Root.from_file(paths.home() / "pki" / "root.pem")
    now = datetime.now(UTC)
    levels = frozenset(("sealed", "separated", "faithful"))
    policy = Strict(levels=levels, statuses=statuses)  # type: ignore[arg-type]
    return verify_quote(quote, FromSoftwarePki(paths.home())(quote, now), root, now, policy)


def test_microcode_rehearsal(versions: Versions) -> None:
    """TCB recovery: old files open after it, newer ones are refused after a rollback, and quotes say what is loaded."""
    one = versions.use(versions.folder / "one")
    for mount in ("/sealed", "/own"):
        versions.write(one, mount, "a", "b")
    before = verified(one)
    assert (before.microcode, before.report.cpu_svn) == (1, b"\x01" * 16)

    assert microcode(2)["microcode"] == 2
    assert json.loads(guest.strongroom("vm", "show", "default", "--json").stdout)["microcode"] == 2
    for mount in ("/sealed", "/own"):
        assert versions.read(one, mount, "a", "b") == ["100", "100"]
        versions.change(one, mount, "b")  # sealed anew, by the key of now
        versions.write(one, mount, "c")
    after = verified(one)
    assert (after.microcode, after.report.cpu_svn, after.report.mrenclave) == (
        2,
        b"\x02" * 16,
        before.report.mrenclave,
    )

    microcode(1)  # rolled back
    for mount in ("/sealed", "/own"):
        assert versions.read(one, mount, "a", "b", "c") == ["100", "EACCES", "EACCES"]
    done = guest.strongroom("run", one, "--", "/app/files.py", "read", "/sealed", "c")
    assert "/sealed/c is refused: it was sealed under newer microcode" in done.stderr
    assert verified(one).microcode == 1, "nobody asks for more yet"

    microcode(2, "--recovery")  # the recovery is published: older microcode is out of date for every VM
    assert verified(one).tcb_status in ("UpToDate", "ConfigurationNeeded")
    for mount in ("/sealed", "/own"):
        assert versions.read(one, mount, "a", "b", "c") == ["100"] * 3
    microcode(1)
    with pytest.raises(TcbStatusRefused, match="STRONGROOM-MICROCODE"):
        verified(one)
    outdated = verified(one, frozenset({"OutOfDate", "OutOfDateConfigurationNeeded"}))
    assert outdated.microcode == 1 and "STRONGROOM-MICROCODE" in outdated.advisory_ids
    microcode(1, "--recovery")
    assert verified(one).microcode == 1, "taken back"


def test_microcode_refusals(versions: Versions) -> None:
    for words, text in (
        (("nowhere", "--svn", "2"), "no VM is called nowhere"),
        (("default", "--svn", "256"), "255"),
    ):
        done = guest.strongroom("vm", "microcode", *words)
        assert done.returncode != 0 and text in done.stderr and done.stderr.count("\n") == 1
    one = versions.use(versions.folder / "one")
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom", "run", str(one), "--", "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        done = guest.strongroom("vm", "microcode", "default", "--svn", "2")
        assert done.returncode == 1 and "VM default is in use" in done.stderr
        process.communicate("\n", timeout=60)
    assert json.loads(guest.strongroom("vm", "show", "default", "--json").stdout)["microcode"] == 1
