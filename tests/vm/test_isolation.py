"""What a guest must not reach or do: the fuses by another name, the host's folders by links of its own, all places."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.vm import Command


@pytest.fixture
def place(command: Command) -> Iterator[Path]:
    """A folder of this user's below /tmp, which a VM does not show."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sr-isolation-") as name:
        folder = Path(name)
        subprocess.run(["chown", str(command.uid), name], check=True, timeout=20)
        yield folder


def needs_namespaces(command: Command) -> None:
    if command.best_level() == "faithful":
        pytest.skip("no namespaces here")


def shell(command: Command, cwd: Path, text: str, vm: str = "default") -> subprocess.CompletedProcess[str]:
    with command.popen("exec", "--vm", vm, "--", "/bin/sh", "-c", text, cwd=cwd) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess((), process.returncode, out, err)


def folder(command: Command, path: Path) -> Path:
    path.mkdir()
    subprocess.run(["chown", str(command.uid), str(path)], check=True, timeout=20)
    return path


def test_the_home_by_its_own_name_and_by_a_link(command: Command, place: Path) -> None:
    needs_namespaces(command)
    real = folder(command, place / "real")
    (place / "link").symlink_to(real)
    linked = replace(command, home=place / "link" / "home")
    try:
        assert shell(linked, real, "true").returncode == 0
        (fuses,) = real.glob("home/vms/*/exec/fuses.json")
        done = shell(linked, real, f"cat {fuses} || cat {place}/link/home/vms/*/exec/fuses.json")
        assert done.returncode != 0
        assert "sealing" not in done.stdout
        (real / "seen").write_text("of the same folder")  # the control: what is beside the home is there
        assert shell(linked, real, f"cat {real}/seen").stdout == "of the same folder"
    finally:
        linked("daemon", "stop")


def test_the_cover_of_the_home_stays(command: Command, place: Path) -> None:
    needs_namespaces(command)
    home = folder(command, place / "home")
    owner = replace(command, home=home)
    try:
        done = shell(owner, place, f"grep CapEff /proc/self/status; umount {home}; ls {home}")
        assert "umount" in done.stderr  # refused, in its own words
        assert "vms" not in done.stdout
        rights = int(done.stdout.split()[1], 16)
        assert not rights >> 21 & 1, "CAP_SYS_ADMIN"
        assert not rights >> 19 & 1, "CAP_SYS_PTRACE"
    finally:
        owner("daemon", "stop")


def test_a_link_in_the_vms_tmp_is_not_followed_on_the_host(command: Command, place: Path) -> None:
    needs_namespaces(command)
    victim, there = folder(command, place / "victim"), folder(command, place / "there")
    job = folder(command, there / "job")
    assert shell(command, Path("/"), f"mkdir {place} && ln -s {victim} {there}").returncode == 0
    done = shell(command, job, "true")
    assert (done.returncode, list(victim.iterdir())) == (125, [])
    assert "Not a directory" in done.stderr or "symbolic links" in done.stderr, done.stderr
    assert shell(command, Path("/"), f"rm {there}").returncode == 0
    done = shell(command, job, "pwd; echo x > made")
    assert (done.returncode, done.stdout) == (0, f"{job}\n")
    assert (job / "made").read_text() == "x\n"


def test_a_guest_leaves_places_for_other_vms(command: Command) -> None:
    assert command("vm", "create", "other").returncode == 0
    one = "/bin/sh -c 'exec 3< /dev/sgx_enclave; sleep 60' 2> /dev/null &"
    flood = f"i=0; while [ $i -lt 132 ]; do {one} i=$((i+1)); done"
    with command.popen("exec", "--", "/bin/sh", "-c", f"{flood}; sleep 4; echo up; sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        done = command("exec", "--vm", "other", "--", "/bin/true")
        process.terminate()
        process.communicate(timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_daemon_does_not_keep_its_starters_lock(command: Command, place: Path) -> None:
    path = place / "lock"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with command.popen("exec", "--", "/bin/true", pass_fds=(held.fileno(),)) as process:
            process.communicate(timeout=60)
            assert process.returncode == 0
    assert command("daemon", "status").returncode == 0
    with path.open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
