"""What runs out: descriptors, memory, room on the disk. A clear error, nothing lost, and then all works again."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.house import House, Parts, kill
from support.vm import Command, wait_until

LONG = "STRONGROOM_FAULTS" in os.environ
"""`make faults`: every step of what is tried by samples otherwise."""


def daemon_of(house: House) -> int:
    return next(one.pid for one in house.processes() if one.role == "daemon")


def work(house: House, parts: Parts, milliseconds: int = 0) -> subprocess.CompletedProcess[str]:
    return house.command("run", str(parts.project), "--", "work", str(milliseconds), "3000")


def assert_works(house: House, parts: Parts) -> None:
    done = work(house, parts)
    assert (done.returncode, done.stdout.splitlines()[-1][:5]) == (0, "good "), done.stderr
    house.settle()
    house.assert_true()


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("strongroom: "), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def limited(house: House, limits: dict[int, int], *words: str) -> subprocess.CompletedProcess[str]:
    """A command under resource limits; the daemon that it starts has them too."""

    def limit() -> None:
        for which, value in limits.items():
            resource.setrlimit(which, (value, value))

    return subprocess.run(
        [*house.command.prefix(), "-m", "strongroom", *words],
        env=house.command.environment(), capture_output=True, text=True, timeout=90, cwd="/",
        stdin=subprocess.DEVNULL, preexec_fn=limit, check=False,
    )  # fmt: skip


def test_a_daemon_without_descriptors(own_house: House, parts: Parts) -> None:
    """From ample to none: each run works or says what is missing; afterwards, with room again, all works."""
    assert_works(own_house, parts)
    daemon = daemon_of(own_house)
    ample = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
    refused = 0
    held = len(os.listdir(f"/proc/{daemon}/fd"))
    for spare in range(41) if LONG else (0, 1, 3, 5, 8, 14, 30):
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, ample)
        own_house.settle()
        now = len(os.listdir(f"/proc/{daemon}/fd"))
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, (now + spare, ample[1]))
        done = work(own_house, parts)
        if done.returncode:
            assert done.returncode == 125
            refused += 1
            assert done.stderr.splitlines()[-1].startswith("strongroom: "), done.stderr
            assert "Traceback" not in done.stderr
    assert refused >= 3
    resource.prlimit(daemon, resource.RLIMIT_NOFILE, ample)
    assert daemon_of(own_house) == daemon, "the daemon outlived it"
    assert_works(own_house, parts)
    own_house.settle()
    wait_until(lambda: len(os.listdir(f"/proc/{daemon}/fd")) <= held + 24)  # and one more loader that waits


def test_many_runs_at_once_are_served_or_refused(own_house: House, parts: Parts) -> None:
    """More programs than the EPC holds, all wanting it: each is right, or says what is missing."""
    assert own_house.command("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0
    count = int(os.environ.get("STRONGROOM_FAULTS", "0")) // 10 + 12
    words = ("run", "--vm", "small", str(parts.project), "--", "work", "400", "3000")
    clients = [own_house.start(*words) for _ in range(count)]
    own_house.wait(clients, 200)
    for client in clients:
        last = client.text.splitlines()[-1]
        if client.status == 0:
            assert "good " in client.text
        else:
            assert (client.status, last[:12]) == (125, "strongroom: "), client.text
    assert sum(client.status == 0 for client in clients) >= count // 2
    own_house.settle()
    own_house.assert_true()


@pytest.mark.parametrize("files", range(4, 40) if LONG else [9, 16])
def test_a_command_without_descriptors(own_house: House, parts: Parts, files: int) -> None:
    assert_works(own_house, parts)
    done = limited(
        own_house, {resource.RLIMIT_NOFILE: files}, "run", str(parts.project), "--", "work", "0", "3000"
    )
    if done.returncode:
        assert done.returncode in (1, 125)
        if files >= 9:  # below that the interpreter itself cannot load its modules, and says so in its way
            one_line(done)
    own_house.settle()


def test_a_daemon_started_with_few_descriptors(own_house: House, parts: Parts) -> None:
    done = limited(
        own_house, {resource.RLIMIT_NOFILE: 32}, "run", str(parts.project), "--", "work", "0", "3000"
    )
    if done.returncode:
        assert done.returncode == 125
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("strongroom: "), done.stderr
    own_house.command("daemon", "stop")
    assert_works(own_house, parts)


@pytest.mark.parametrize("mebibytes", range(40, 500, 20) if LONG else [120, 300])
def test_little_memory_for_the_daemon(own_house: House, parts: Parts, mebibytes: int) -> None:
    """RLIMIT_AS from the start: threads, maps and the interpreter itself may find none."""
    limit = {resource.RLIMIT_AS: mebibytes << 20}
    done = limited(own_house, limit, "run", str(parts.project), "--", "work", "0", "3000")
    assert done.returncode in (0, 1, 125, 127), (done.returncode, done.stderr)
    if mebibytes >= 200 and done.returncode:
        assert "Traceback" not in done.stderr, done.stderr
    if any(one.role == "daemon" for one in own_house.processes()):
        # It may have no memory for a run, or for a look at one; that it can be ended is the least.
        stopped = own_house.command("daemon", "stop")
        assert stopped.returncode == 0, stopped.stderr
    own_house.settle()
    assert_works(own_house, parts)


def test_a_daemon_that_runs_out_of_memory(own_house: House, parts: Parts) -> None:
    assert_works(own_house, parts)
    daemon = daemon_of(own_house)
    ample = resource.prlimit(daemon, resource.RLIMIT_AS)
    statm = int(Path(f"/proc/{daemon}/statm").read_text().split()[0]) * 4096
    for spare in range(0, 24 << 20, (1 if LONG else 6) << 20):
        resource.prlimit(daemon, resource.RLIMIT_AS, (statm + spare, ample[1]))
        done = work(own_house, parts)
        if done.returncode:
            assert done.returncode == 125, done.stderr
            assert "Traceback" not in done.stderr
    resource.prlimit(daemon, resource.RLIMIT_AS, ample)
    assert_works(own_house, parts)


# ---- the disk ----


@pytest.fixture
def small_disk(strongroom_home: Path) -> Iterator[Path]:
    """A file system of 3 MiB that STRONGROOM_HOME is on."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    place = strongroom_home.parent / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=755", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no mounts here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=20)


def fill(place: Path, leave: int = 0) -> Path:
    filler = place / "filler"
    number = os.open(filler, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        while True:
            os.write(number, bytes(4096))
    except OSError:
        pass
    finally:
        os.ftruncate(number, max(0, os.lseek(number, 0, os.SEEK_CUR) - leave))
        os.close(number)
    return filler


def test_a_full_disk_under_the_home(small_disk: Path, parts: Parts) -> None:
    command = Command(small_disk / "h", parts.native, os.geteuid())
    refused = 0
    try:
        for leave in range(0, 200_000, 4096) if LONG else (0, 8192, 40960):
            filler = fill(small_disk, leave)
            for words in (("vm", "create", "clinic"), ("run", str(parts.project), "--", "work", "0", "3000")):
                done = command(*words)
                if done.returncode == 0:
                    continue
                assert done.returncode == (1 if words[0] == "vm" else 125), (words, done.stderr)
                text = done.stderr.splitlines()[-1]
                assert text.startswith("strongroom: "), done.stderr
                assert "Traceback" not in done.stderr
                refused += "space" in text
            listed = command("vm", "list", "--json")
            assert listed.returncode in (0, 1), listed.stderr
            filler.unlink()
            listed = command("vm", "list", "--json")
            assert listed.returncode == 0, listed.stderr
            for vm in json.loads(listed.stdout):
                assert command("vm", "delete", vm["name"]).returncode == 0
            command("daemon", "stop")
        assert refused >= 3
        done = command("run", str(parts.project), "--", "work", "0", "3000")
        assert done.returncode == 0, done.stderr
        assert not [path for path in (small_disk / "h" / "vms").iterdir() if path.name != "8"][1:]
    finally:
        command("daemon", "stop")


def test_a_full_disk_during_a_build(small_disk: Path) -> None:
    """Nothing is half built: the image from before is still there."""
    project = small_disk / "p"
    project.mkdir()
    (project / "main.py").write_text("print('it ran')\n")
    (project / "enclave.toml").write_text('[enclave]\nmain = "main.py"\n')
    before = project / "build"
    before.mkdir()
    (before / "enclave.json").write_text("{}")
    (before / "kept").write_text("as it was")
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", "build", str(project)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "STRONGROOM_HOME": str(small_disk.parent / "other")}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    one_line(done, "the disk is full", "free some space")
    assert {path.name for path in project.iterdir()} == {"main.py", "enclave.toml", "build"}
    assert (before / "kept").read_text() == "as it was"


# ---- what a crash or somebody else left ----


def test_a_stale_socket_and_lock(own_house: House, parts: Parts) -> None:
    assert_works(own_house, parts)
    kill(daemon_of(own_house))
    wait_until(lambda: not [one for one in own_house.processes() if one.role == "daemon"])
    assert (own_house.home / "daemon.sock").exists()
    assert json.loads(own_house.command("vm", "list", "--json").stdout)[0]["programs"] == 0
    assert own_house.command("daemon", "status").returncode == 1
    assert_works(own_house, parts)


@pytest.mark.parametrize("kind", ["empty", "cut", "noise", "rows", "newer"])
def test_a_database_half_written(own_house: House, parts: Parts, kind: str) -> None:
    assert_works(own_house, parts)
    own_house.command("daemon", "stop")
    path = own_house.home / "strongroom.db"
    for name in ("strongroom.db-wal", "strongroom.db-shm"):
        (own_house.home / name).unlink(missing_ok=True)
    if kind == "empty":
        os.truncate(path, 0)
    elif kind == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "noise":
        path.write_bytes(os.urandom(path.stat().st_size))
    else:
        import sqlite3

        change = "update vms set state='Floating'" if kind == "rows" else "pragma user_version=99"
        with sqlite3.connect(path) as base:
            base.execute(change)
        base.close()
    os.chown(path, own_house.command.uid, own_house.command.uid)
    for words in (("vm", "list"), ("run", str(parts.project), "--", "work", "0", "3000")):
        done = own_house.command(*words)
        if kind == "empty":
            assert done.returncode == 0, done.stderr  # a database that was about to be made
            continue
        assert done.returncode == (125 if words[0] == "run" else 1), done.stderr
        one_line(done, "database" if kind != "newer" else "newer Strongroom", ": ")
    own_house.settle()
    path.unlink()
    for left in own_house.home.glob("strongroom.db-*"):
        left.unlink()
    shutil.rmtree(own_house.home / "vms")
    own_house.command("daemon", "stop")
    assert_works(own_house, parts)


def test_a_daemon_of_another_version(own_house: House, parts: Parts) -> None:
    """An older or newer command is told so, both ways, and what it may do: look, and end it."""
    assert_works(own_house, parts)
    copy = own_house.folder / "other" / "strongroom"
    import strongroom

    shutil.copytree(Path(strongroom.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "__init__.py").read_text()
    assert text.count(f'"{strongroom.__version__}"') == 1
    (copy / "__init__.py").write_text(text.replace(strongroom.__version__, "99.0.0"))
    environment = own_house.command.environment()
    environment["PYTHONPATH"] = f"{copy.parent}:{environment['PYTHONPATH']}"

    def other(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*own_house.command.prefix(), "-m", "strongroom", *words], env=environment, capture_output=True,
            text=True, timeout=60, cwd="/", stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    for words in (("run", str(parts.project)), ("exec", "--", "true")):
        done = other(*words)
        assert done.returncode == 125
        one_line(done, "99.0.0", strongroom.__version__, "strongroom daemon stop")
    done = other("vm", "list")
    assert done.returncode in (0, 1)
    assert other("daemon", "status").returncode == 0
    assert other("daemon", "stop").returncode == 0
    assert other("run", str(parts.project), "--", "work", "0", "3000").returncode == 0
    done = work(own_house, parts)
    assert done.returncode == 125
    one_line(done, "99.0.0", strongroom.__version__, "strongroom daemon stop")
    own_house.command("daemon", "stop")
    assert_works(own_house, parts)


def test_a_second_daemon_ends_at_once(own_house: House, parts: Parts) -> None:
    assert_works(own_house, parts)
    first = daemon_of(own_house)
    done = subprocess.run(
        [*own_house.command.prefix(), "-m", "strongroom.vm.host"], env=own_house.command.environment(), timeout=30,
        capture_output=True, cwd="/", check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert daemon_of(own_house) == first
    time.sleep(0.1)
    assert_works(own_house, parts)
