"""Bad input of every kind: one line that says what is wrong and what to do, the right status, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.interpreter_image import need_runtime


def strongroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "strongroom", *words],
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert (done.returncode, done.stdout) == (status, ""), (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("strongroom: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


MANIFESTS = [
    ('memmory = "4M"', "unknown key 'memmory'", "did you mean memory?"),
    ('packages = ["no-such-thing-at-all"]', "no-such-thing-at-all is not installed", "pip install"),
    ('packages = ["not a name!"]', "enclave.toml"),
    ('memory = "12Q"', "'12Q' is not a size", 'write memory = "48M"'),
    (
        'memory = "32"',
        "memory = '32' is in bytes, and out of range",
        'name a unit, memory = "48M", or write 1M to',
    ),
    ('memory = "99999G"', "is out of range", "write 1M to 1024G"),
    ("threads = 100000", "is out of range", "write a number from 1 to 512"),
    ('[files]\n"/data" = "secret"', "unknown kind of file 'secret'", "write one of"),
    ("[enclave", "enclave.toml:3", "TOML"),
    ("svn = -1", "enclave.toml:3"),
]


@pytest.mark.parametrize(
    ("text", "said"), [(text, said) for text, *said in MANIFESTS], ids=[m[0] for m in MANIFESTS]
)
def test_manifests(tmp_path: Path, text: str, said: list[str]) -> None:
    (tmp_path / "main.py").write_text("print(1)\n")
    (tmp_path / "enclave.toml").write_text(f'[enclave]\nmain = "main.py"\n{text}\n')
    one_line(strongroom("build", str(tmp_path)), 1, *said, ": ")
    assert {path.name for path in tmp_path.iterdir()} == {"main.py", "enclave.toml"}


def test_projects_that_are_none(tmp_path: Path) -> None:
    one_line(strongroom("build", str(tmp_path)), 1, "enclave.toml", "strongroom new")
    (tmp_path / "enclave.toml").write_text('main = "gone.py"\n')
    one_line(strongroom("build", str(tmp_path)), 1, "'gone.py' is not a file", "name a file of the project")
    one_line(strongroom("run", str(tmp_path)), 125, "has no built image", "run `strongroom build")
    one_line(strongroom("measure", str(tmp_path / "none")), 1, "none")
    for verb, status in (("run", 125), ("build", 1), ("fit", 1), ("quote", 1)):
        done = strongroom(verb, str(tmp_path / "enclave.toml"), *(["--out", "q"] if verb == "quote" else []))
        one_line(done, status, "enclave.toml is a file", f"name the project's folder, {tmp_path}\n")
    one_line(strongroom("diff", str(tmp_path), str(tmp_path)), 2, "run `strongroom build")


def test_a_program_that_cannot_go_inside(tmp_path: Path) -> None:
    (tmp_path / "enclave.toml").write_text('main = "prog"\n')
    (tmp_path / "prog").write_bytes(b"\x7fELF\x01\x01\x01" + bytes(60))
    one_line(strongroom("build", str(tmp_path)), 1, "prog", ": ")
    (tmp_path / "prog").write_text("#!/bin/sh\n")
    (tmp_path / "prog").chmod(0o755)
    one_line(strongroom("build", str(tmp_path)), 1, "prog", ": ")


VMS = [
    (2, ("vm", "create", "x", "--size", "Standard_DC3s_v2"), "no VM size", "did you mean Standard_DC4s_v2?"),
    (2, ("vm", "create", "a/b"), "'a/b' is no VM name", "use 1 to 64 letters"),
    (1, ("vm", "create", "clinic"), "VM clinic exists already", "strongroom vm show clinic"),
    (1, ("vm", "resize", "clinic", "Standard_DC1s_v3"), "is not of clinic's family", "choose one of"),
    (2, ("vm", "resize", "clinic", "nope"), "no VM size 'nope'", "strongroom vm sizes"),
    (1, ("vm", "delete", "nope"), "no VM is called nope", "strongroom vm create nope"),
    (125, ("exec", "--vm", "nope", "--", "true"), "no VM is called nope", "strongroom vm create nope"),
    (125, ("exec", "--", "no-such-program"), "no program 'no-such-program'", "PATH"),
    (2, ("vm", "create", "y", "--siz", "x"), "--siz", "--help"),
    (125, ("run",), "Missing argument", "see `strongroom run --help`"),
    (125, ("run", "--vmm", "x", "a"), "--vmm", "see `strongroom run --help`"),
    (125, ("run", "a", "--vm", "clinic"), "--vm stands after DIR", "options go before DIR", "`a -- --vm`"),
    (125, ("run", "a", "--help"), "--help stands after DIR", "options go before DIR"),
    (125, ("exec",), "Missing argument", "see `strongroom exec --help`"),
    (125, ("exec", "--nope", "true"), "--nope", "see `strongroom exec --help`"),
    (125, ("exec", "--"), "Missing argument"),
    (125, ("vm", "exec", "clinic"), "Missing argument", "see `strongroom vm exec --help`"),
    (125, ("vm", "exec", "clinic", "--", "no-such-program"), "no program 'no-such-program'"),
    (2, ("vmm",), "vmm", "--help"),
]  # fmt: skip


def test_vms() -> None:
    need_runtime()
    try:
        assert strongroom("vm", "create", "clinic").returncode == 0
        for status, words, *said in VMS:
            one_line(strongroom(*words), status, *said)
        assert [vm["name"] for vm in json.loads(strongroom("vm", "list", "--json").stdout)] == ["clinic"]
    finally:
        strongroom("daemon", "stop")


def test_what_is_no_quote_or_half_of_one(tmp_path: Path) -> None:
    for name in ("none", ""):
        one_line(
            strongroom("verify", str(tmp_path / name)), 1, "cannot read", "`strongroom quote DIR --out FILE`"
        )
    for content in (b"import os\n" * 9, bytes(100), b"x" * 70000):
        (tmp_path / "q").write_bytes(content)
        one_line(
            strongroom("verify", str(tmp_path / "q")), 1, ": name a file that `strongroom quote` or a DCAP"
        )
    (tmp_path / "q").write_bytes(b"\x03\0\x02" + bytes(700))
    one_line(strongroom("verify", str(tmp_path / "q")), 1, "signature data", ": get it again, whole")
    one_line(
        strongroom("quote", str(tmp_path), "--data", "zz", "--out", "q"),
        2,
        "zz",
        ": write two of 0-9 and a-f",
    )


def test_an_image_with_an_empty_signature(tmp_path: Path) -> None:
    from strongroom.image import sgxs

    with (tmp_path / "enclave.sgxs").open("wb") as file:
        sgxs.Writer(file, 1 << 20)
    for name in ("enclave.sig", "enclave.json"):
        (tmp_path / name).write_text("")
    for verb in ("measure", "inspect"):
        done = strongroom(verb, str(tmp_path))
        one_line(
            done,
            1,
            f"{tmp_path}/enclave.sig: SIGSTRUCT is 1808 bytes, got 0: build and sign the enclave again",
        )
