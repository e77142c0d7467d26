"""Encrypted files inside: as ordinary Python code expects, and as their owner reads them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strongroom.machine import level as levels
from strongroom.owner.folders import decrypt_folder, encrypt_folder
from support import interpreter_image as guest

PROGRAM = Path(__file__).parent / "programs" / "operations.py"
KEY = bytes([7] * 32)


def outside(*arguments: str, program: Path = PROGRAM) -> str:
    done = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize(("mount", "first"), [("/data", 1), ("/sealed", 501)])
def test_operations_as_outside(project: Path, tmp_path: Path, mount: str, first: int) -> None:
    """Thousands of random operations give what an ordinary folder gives, and so does a later run."""
    plain = tmp_path / "plain"
    plain.mkdir()
    seeds = [str(seed) for seed in range(first, first + 24)]
    expected = outside(str(plain), "700", *seeds).splitlines()
    found = guest.inside(project, "operations.py", mount, "700", *seeds).splitlines()
    assert [(one, two) for one, two in zip(found, expected, strict=True) if one != two][:3] == []
    assert len(found) > 24 * 700
    assert sum(" E" in line for line in found) > 1000, "refusals are compared too"
    assert guest.inside(project, "operations.py", mount, "walk") == outside(str(plain), "walk")
    host = project / mount[1:]
    assert not list(host.rglob(".sr-stage-*"))
    assert not any(path.read_bytes() in (host / path.relative_to(plain)).read_bytes()
                   for path in plain.rglob("*") if path.is_file() and path.stat().st_size > 16)  # fmt: skip
    if mount == "/data":
        decrypt_folder(KEY, host, tmp_path / "again", "/data")
        assert tree(tmp_path / "again") == tree(plain)


def test_pythons_libraries(project: Path, tmp_path: Path) -> None:
    """sqlite3, shelve, tempfile, shutil, archives, rotating logs, threads: as in an ordinary folder."""
    program = PROGRAM.with_name("libraries.py")
    expected = outside(str(tmp_path / "plain"), program=program).splitlines()
    assert len(expected) == 11 and not [line for line in expected if "FAILED" in line]
    assert guest.inside(project, "libraries.py", "/data").splitlines() == expected
    assert not list((project / "data").rglob(".sr-stage-*"))
    decrypt_folder(KEY, project / "data", tmp_path / "again", "/data")
    names = {path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*")}
    assert names == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*")}


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def test_what_the_owner_encrypted(project: Path, tmp_path: Path) -> None:
    clear = tmp_path / "clear"
    (clear / "sub").mkdir(parents=True)
    for name, size in (("none", 0), ("one", 1), ("sub/chunk", 16384), ("large", 1_000_001)):
        (clear / name).write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    encrypt_folder(KEY, clear, project / "data", "/data")
    said = dict(line.split(" ", 1) for line in guest.inside(project, "files.py", "read", "/data",
                "none", "one", "sub/chunk", "large").splitlines())  # fmt: skip
    for name, words in said.items():
        data = (clear / name).read_bytes()
        assert words == f"{len(data)} {len(data)} {hashlib.sha256(data).hexdigest()[:16]}", name
    guest.inside(project, "files.py", "change", "/data", "500000", "40000", "large")
    decrypt_folder(KEY, project / "data", tmp_path / "again", "/data")
    changed = bytearray((clear / "large").read_bytes())
    changed[500_000:540_000] = b"\x5a" * 40_000
    assert (tmp_path / "again" / "large").read_bytes() == bytes(changed)


def test_without_the_key(project: Path) -> None:
    """ENOKEY until the key is there, which is set once and never read back."""
    code = """
import errno, os
def attempt(action):
    try: return action()
    except OSError as error: return errno.errorcode[error.errno]
node = "/dev/attestation/keys/data"
print(attempt(lambda: open("/data/x", "wb")), attempt(lambda: os.listdir("/data")))
print(attempt(lambda: open(node, "rb")), attempt(lambda: open("/dev/attestation/keys/sealed", "wb")))
def give(text):
    with open(node, "wb", buffering=0) as file: file.write(text)
print(*[attempt(lambda: give(key)) for key in (b"short", b"x" * 64, bytes(32), bytes(32))])
print(attempt(lambda: open("/data/x", "wb").close()), attempt(lambda: os.listdir("/data")))
"""
    done = guest.strongroom("run", project, "--", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ENOKEY ENOKEY", "EACCES EROFS", "EINVAL EINVAL None EEXIST", "None ['x']",
    ]  # fmt: skip


def test_native_code_is_refused(project: Path, tmp_path: Path) -> None:
    """An encrypted library is data that cannot be made executable, and the error says so."""
    clear = tmp_path / "clear"
    clear.mkdir()
    gcc = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o", str(clear / "l.so")],
        input="int f(void) { return 1; }", text=True, check=False,
    )  # fmt: skip
    if gcc.returncode:
        pytest.skip("no gcc")
    encrypt_folder(KEY, clear, project / "data", "/data")
    code = """
import ctypes
open("/dev/attestation/keys/data", "w").write("07" * 32)
try: ctypes.CDLL("/data/l.so")
except OSError as error: print(error)
"""
    done = guest.strongroom("run", project, "--", "-c", code)
    assert "failed to map segment" in done.stdout
    assert re.search(
        r"strongroom: /data/l\.so cannot be run: encrypted native code would not stay secret", done.stderr
    )


SYNCS = {
    "fsync": "os.fsync(file.fileno())",
    "sync": "os.sync()",
    "syncfs": "ctypes.CDLL(None).syncfs(os.open('/data', os.O_RDONLY))",
}


@pytest.mark.parametrize("sync", SYNCS)
def test_a_killed_writer_leaves_the_version_before(project: Path, sync: str) -> None:
    """SIGKILL with changes not yet synced: the file is as at its last fsync, and nothing is left beside it."""
    code = """
import ctypes, os, time
open("/dev/attestation/keys/data", "w").write("07" * 32)
with open("/data/x", "wb") as file:
    file.write(b"1" * 300_000)
    SYNC
    file.write(b"2" * 3_000_000)
    print("now", flush=True)
    time.sleep(100)  # not a read: the end of its input would reach it before the daemon's kill
""".replace("SYNC", SYNCS[sync])
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom", "run", str(project), "--", "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        left = [path.name for path in (project / "data").iterdir()]
        assert len(left) == 2, "the next version is under way"
        process.kill()
    said = guest.inside(project, "files.py", "read", "/data", "x")
    assert said.split()[:3] == ["x", "300000", "300000"]
    guest.inside(project, "files.py", "write", "/data", "10", "1", "y")
    assert sorted(path.name for path in (project / "data").iterdir()) == ["x", "y"]


def test_what_was_written_survives_the_end_of_the_program(project: Path) -> None:
    """As with any process: data handed to write() is in the file after os._exit and after a deadly signal."""
    for name, end in (("a", "os._exit(0)"), ("b", "os.kill(os.getpid(), 15)")):
        code = f"""
import os
open("/dev/attestation/keys/data", "w").write("07" * 32)
os.write(os.open("/data/{name}", os.O_CREAT | os.O_WRONLY), b"kept")
{end}
"""
        done = guest.strongroom("run", project, "--", "-c", code)
        assert done.returncode == (0 if name == "a" else 143)
    said = guest.inside(project, "files.py", "read", "/data").splitlines()
    assert [line.split()[:3] for line in said] == [["a", "4", "4"], ["b", "4", "4"]]


def test_python_code_comes_encrypted(project: Path, tmp_path: Path) -> None:
    """A package with relative imports and a resource, imported once the key is there; no byte code is left behind."""
    package = tmp_path / "clear" / "secretly"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("from .parts.adder import add\n")
    (package / "parts" / "__init__.py").write_text("")
    (package / "parts" / "adder.py").write_text("SECRET = 40\ndef add(x):\n    return SECRET + x\n")
    (package / "table.txt").write_text("a resource\n")
    encrypt_folder(KEY, tmp_path / "clear", project / "data", "/data")
    code = """
import importlib, sys
from importlib import resources
sys.dont_write_bytecode = True
sys.path.insert(0, "/data")
try: import secretly
except OSError as error: print(error)
open("/dev/attestation/keys/data", "w").write("07" * 32)
importlib.invalidate_caches()
import secretly, inspect
print(secretly.add(2), resources.files("secretly").joinpath("table.txt").read_text().strip())
print(inspect.getsource(secretly.add).strip().splitlines()[-1].strip())
"""
    done = guest.strongroom("run", project, "--", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[Errno 126] Required key not available: '/data'",
        "42 a resource",
        "return SECRET + x",
    ]
    names = sorted(path.name for path in (project / "data").rglob("*"))
    assert names == sorted(["secretly", "__init__.py", "parts", "__init__.py", "adder.py", "table.txt"])


WRITER = """
import hashlib, os, random
open("/dev/attestation/keys/data", "w").write("07" * 32)
dice = random.Random(SEED)
for number in range(100000):
    body = dice.randbytes(dice.choice((10, 5000, 60_000, 400_000)))
    with open("/data/x", "r+b" if number % 3 else "wb") as file:
        file.write(hashlib.sha256(body).digest() + body)
        file.truncate()
        if number % 2:
            os.fsync(file.fileno())
    if number % 4 == 3:
        os.replace("/data/x", "/data/y")
        open("/data/x", "wb").write(hashlib.sha256(b"").digest())
    if number == 3:
        print("under way", flush=True)
"""


def test_kills_at_any_moment(project: Path, tmp_path: Path) -> None:
    """SIGKILL at seeded moments: each file is there as one of its versions, whole, and the next writer goes on."""
    dice = random.Random(7)
    found = set()
    for seed in range(6):
        with subprocess.Popen(
            [sys.executable, "-m", "strongroom", "run", str(project), "--", "-c", WRITER.replace("SEED", str(seed))],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "under way\n"
            time.sleep(dice.random() / 4)
            process.kill()
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        wait_until_ended()
        decrypt_folder(KEY, project / "data", tmp_path / "again", "/data")  # refuses what is not whole
        for path in (tmp_path / "again").iterdir():
            data = path.read_bytes()
            assert data == b"" or data[:32] == hashlib.sha256(data[32:]).digest(), path
            found.add(path.name)
    assert found == {"x", "y"}


def wait_until_ended() -> None:
    """Until the daemon has ended what the killed command had started."""
    for _ in range(200):
        if json.loads(guest.strongroom("daemon", "status", "--json").stdout)["runs"] == 0:
            return
        time.sleep(0.05)
    raise AssertionError("a run goes on though its command was killed")


@pytest.mark.parametrize("level", ["sealed", "separated", "faithful"])
def test_each_level(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """The VM's view of the host's folders differs between the levels; the folder itself may be a link."""
    order = ["sealed", "separated", "faithful"]
    if order.index(level) < order.index(str(levels.best(levels.find_facts()))):
        pytest.skip(f"level {level} is not to be had on this machine as this user")
    monkeypatch.setenv("STRONGROOM_LEVEL", level)
    (tmp_path / "elsewhere").mkdir()
    (project / "data").symlink_to(tmp_path / "elsewhere")
    guest.inside(project, "files.py", "write", "/data", "20000", "1", "a", "sub/b")
    found = guest.inside(project, "files.py", "read", "/data", "a", "sub/b").splitlines()
    assert [line.split()[:3] for line in found] == [["a", "20000", "20000"], ["sub/b", "20000", "20000"]]
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["a", "sub"]
    assert (tmp_path / "elsewhere" / "a").stat().st_uid == os.geteuid()


def test_open_that_fails_empties_nothing(project: Path) -> None:
    code = """
import os, resource
open("/dev/attestation/keys/data", "w").write("07" * 32)
open("/data/a", "w").write("kept")
file = os.open("/data/a", os.O_RDONLY)
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (file, limit[1]))
for flags in (os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
    try: os.open("/data/a" if flags & os.O_TRUNC else "/data/b", flags)
    except OSError as error: print(error.errno)
resource.setrlimit(resource.RLIMIT_NOFILE, limit)
os.close(file)
print(open("/data/a").read(), os.listdir("/data"))
"""
    done = guest.strongroom("run", project, "--", "-c", code)
    assert (done.stdout, done.returncode) == ("24\n24\nkept ['a']\n", 0), done.stderr
