"""`run` and `exec` from the command to the process in the VM, at every level, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.vm import Command, command_line, descendants, wait_until

LEVELS = ("sealed", "separated", "faithful")


def runs(command: Command) -> int:
    return int(json.loads(command("daemon", "status", "--json").stdout)["runs"])


@pytest.mark.parametrize("level", LEVELS)
def test_status_line_and_level(command: Command, image: Path, level: str) -> None:
    done = command("run", "--level", level, str(image), "--", "exit", "7")
    if LEVELS.index(level) < LEVELS.index(command.best_level()):
        assert done.returncode == 125
        assert done.stderr.startswith(f"strongroom: level {level} is not to be had here")
        return
    assert (done.returncode, done.stdout) == (7, "")
    mrenclave = (bytes(range(256)) * 7)[960:992].hex()
    assert done.stderr == f"strongroom: {level} · VM default · MRENCLAVE {mrenclave}\n"


def test_a_signals_status_comes_through(command: Command, image: Path) -> None:
    assert command("run", str(image), "--", "raise", "15").returncode == 143


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_loader_is(command: Command, image: Path, level: str) -> None:
    if LEVELS.index(level) < LEVELS.index(command.best_level()):
        pytest.skip(f"{level} is not to be had as user {command.uid}")
    asked = ["id", "", "core", "", "descriptors", "", "show", "/proc/self/status", "exists", "/home"]
    done = command("run", "--level", level, str(image), "--", *asked, "exists", "/dev/sgx_enclave")
    lines = done.stdout.splitlines()
    uid, _, pid = map(int, lines[0].split())
    assert lines[1] == "0"  # no core files
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if level == "faithful":
        assert uid == command.uid
        return
    # stdio, image, quotes; the line to the package and the EPC (6, 7) are the library's and moved away.
    assert lines[2].split() in (list("0123458"), list("012345678"))
    assert pid < 10  # of a namespace of its own
    assert status["NoNewPrivs"] == "1"
    assert lines[-2:] == ["0", "1"]
    assert uid != command.uid or command.uid != 0
    lock_memory = f"{1 << 14:016x}"
    assert status["CapEff"] == (lock_memory if level == "sealed" else "0" * 16)


def test_ctrl_c_reaches_the_program(command: Command, image: Path) -> None:
    with command.popen("run", str(image), "--", "sleep", "100") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert runs(command) == 0


def test_a_killed_client_takes_its_run_along(command: Command, image: Path) -> None:
    with command.popen("run", str(image), "--", "sleep", "1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert runs(command) == 1
        # The test may have started setpriv, which became the command: the pid is the command's.
        process.kill()
        process.wait(20)
    wait_until(lambda: runs(command) == 0)


def _processes_of(home: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if f"STRONGROOM_HOME={home}\0".encode() in environment and state != "Z":
                found.append(int(entry.name))
    return found


def test_a_killed_daemon_leaves_nothing_running(command: Command, image: Path) -> None:
    with command.popen("run", str(image), "--", "sleep", "1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = json.loads(command("daemon", "status", "--json").stdout)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert process.wait(20) == 125
        assert process.stderr is not None
        assert "the daemon ended while the program ran" in process.stderr.read()
    wait_until(lambda: not _processes_of(command.home))
    assert command("run", str(image), "--", "exit", "0").returncode == 0  # the next one starts anew


def test_two_at_once(command: Command, image: Path) -> None:
    with (
        command.popen("run", str(image), "--", "sleep", "1000") as one,
        command.popen("run", str(image), "--", "sleep", "1000") as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            process.stdout.readline()
        assert runs(command) == 2
        for process in (one, two):
            process.terminate()
            assert process.wait(20) == 143


def test_a_vm_in_use_is_not_deleted(command: Command, image: Path) -> None:
    with command.popen("run", str(image), "--", "sleep", "1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        refused = command("vm", "delete", "default")
        assert refused.returncode == 1
        assert "is in use" in refused.stderr
        assert "strongroom vm stop default" in refused.stderr
        assert process.poll() is None
        assert command("vm", "delete", "--force", "default").returncode == 0
        assert process.wait(20) == 125
    assert json.loads(command("vm", "list", "--json").stdout) == []


def test_a_stopped_vm_runs_nothing(command: Command, image: Path) -> None:
    assert command("vm", "create", "clinic").returncode == 0
    assert command("vm", "stop", "clinic").returncode == 0
    for verb in (("run", "--vm", "clinic", str(image)), ("exec", "--vm", "clinic", "--", "true")):
        done = command(*verb)
        assert done.returncode == 125
        assert done.stderr.endswith("VM clinic is stopped: start it with `strongroom vm start clinic`\n")


def test_epc_exhausted_is_named(command: Command, image: Path, tmp_path: Path) -> None:
    project = command.home.parent / "big"
    subprocess.run(["cp", "-r", str(image), str(project)], check=True)
    (project / "build" / "enclave.json").write_text(json.dumps({"epc_size": 10 << 30}))
    done = command("run", str(project))
    assert done.returncode == 125
    assert done.stderr == (
        "strongroom: the enclave needs 10240 MiB; VM default (Standard_DC2s_v2) has 56 MiB of EPC and 8 GiB of memory "
        "for what is evicted: `strongroom vm resize default Standard_DC4s_v2`\n"
    )
    assert command("vm", "resize", "default", "Standard_DC4s_v2").returncode == 0
    assert command("run", str(project), "--", "exit", "0").returncode == 0


def test_not_built_names_the_step(command: Command) -> None:
    done = command("run", str(command.home.parent / "nowhere"))
    assert done.returncode == 125
    assert "strongroom build" in done.stderr
    assert done.stderr.count("\n") == 1


def test_allowed_host_files_and_no_others(command: Command, image: Path) -> None:
    level = command.best_level()
    if level == "faithful":
        pytest.skip("no namespaces here: a run sees what its user sees")
    project = command.home.parent / "p"
    secret = command.home.parent / "mine"
    subprocess.run(["cp", "-r", str(image), str(project)], check=True)
    secret.mkdir()
    (secret / "in").write_text("given")
    secret.chmod(0o700)
    (secret / "in").chmod(0o600)
    for path in (secret, secret / "in"):
        os.chown(path, command.uid, command.uid)
    facts = {"mounts": [{"path": "/out", "kind": "allowed", "host_path": "../mine"}]}
    (project / "build" / "enclave.json").write_text(json.dumps(facts))
    asked = ["show", str(secret / "in"), "write", str(secret / "out"), "exists", str(command.home)]
    done = command("run", str(project), "--", *asked)
    assert done.stdout == "given1\n0\n", done.stderr
    assert (secret / "out").stat().st_uid == command.uid


def test_a_file_system_without_id_mapped_mounts(command: Command, image: Path) -> None:
    """The enclave's own user has to have the rights there (overlayfs, 9p, older tmpfs): said, not met inside."""
    if os.geteuid() != 0 or command.uid != 0 or command.best_level() == "faithful":
        pytest.skip("only root's runs have users that nobody in the VM is")
    place = command.home.parent / "old"
    place.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", str(place)], check=False).returncode:
        pytest.skip("no mounts here")
    try:
        project, given = place / "p", place / "given"
        subprocess.run(["cp", "-r", str(image), str(project)], check=True)
        given.mkdir(0o700)
        (given / "in").write_text("given")
        facts = {"mounts": [{"path": "/out", "kind": "allowed", "host_path": "../given"}]}
        (project / "build" / "enclave.json").write_text(json.dumps(facts))
        done = command("run", str(project), "--", "show", str(given / "in"))
        assert (done.returncode, done.stdout) == (125, "")
        assert "no id-mapped mounts: `chmod -R o+rX` it" in done.stderr
        assert str(given) in done.stderr
        given.chmod(0o755)
        done = command("run", str(project), "--", "show", str(given / "in"))
        assert (done.returncode, done.stdout) == (0, "given"), done.stderr
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=20)


def test_exec_passes_status_and_shows_the_vm(command: Command) -> None:
    done = command(
        "exec", "--", "/bin/sh", "-c", "read -r name < /proc/sys/kernel/hostname; echo $name $$; exit 9"
    )
    assert done.returncode == 9
    assert done.stderr == "strongroom: faithful (exec) · VM default\n"
    name, pid = done.stdout.split()
    if command.best_level() != "faithful":
        assert (name, int(pid) < 10) == ("default", True)
    assert command("exec", "--", "no-such-program").returncode == 125
    assert command("vm", "exec", "default", "--", "/bin/sh", "-c", "kill -TERM $$").returncode == 143


def test_exec_follows_what_the_program_executes(command: Command) -> None:
    """Each has the device's vDSO, whoever started it: a shell, env, Python."""
    look = "grep -q strongroom /proc/self/maps; readlink /proc/self/exe > /dev/null && echo ran"
    for words in (["/bin/sh", "-c", f"/bin/sh -c '{look}'"], ["/usr/bin/env", "A=b", "/bin/sh", "-c", look]):
        done = command("exec", "--", *words)
        assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    text = "import subprocess; print(subprocess.run(['/bin/sh', '-c', 'exit 5']).returncode)"
    assert command("exec", "--", "/usr/bin/env", "python3", "-c", text).stdout == "5\n"
    done = command("exec", "--", "/bin/sh", "-c", "exec /bin/sh -c 'exit 6'")
    assert done.returncode == 6
    assert command("daemon", "status", "--json").returncode == 0


def test_exec_hides_the_home(command: Command) -> None:
    if command.best_level() == "faithful":
        pytest.skip("no namespaces here")
    done = command(
        "exec", "--", "/bin/sh", "-c", f"test -e {command.home}/strongroom.db && echo seen; echo x > /etc/x"
    )
    assert "seen" not in done.stdout
    assert "Read-only" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="the debugger watch needs root")
def test_a_debugger_is_answered_with_a_kill(command: Command, image: Path) -> None:
    if command.uid != 0 or command.best_level() != "sealed":
        pytest.skip("level sealed is not to be had")
    with command.popen("run", str(image), "--", "sleep", "1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        daemon = json.loads(command("daemon", "status", "--json").stdout)["pid"]
        (target,) = [pid for pid in descendants(daemon) if b"--fd-sgxs" in command_line(pid)]
        time.sleep(0.1)
        attach = "import ctypes,time; ctypes.CDLL(None).ptrace(0x4206, TARGET, None, None); time.sleep(5)"
        with subprocess.Popen(["/usr/bin/python3", "-c", attach.replace("TARGET", str(target))]) as debugger:
            try:
                assert process.wait(10) == 137
            finally:
                debugger.kill()
    assert json.loads(command("daemon", "status", "--json").stdout)["debuggers_refused"] == 1


def test_a_project_that_may_not_be_read_is_our_failure(command: Command, tmp_path: Path) -> None:
    if command.uid == 0:
        pytest.skip("root reads everything")
    tmp_path.chmod(0)
    done = command("run", str(tmp_path / "nowhere"))
    tmp_path.chmod(0o700)
    assert done.returncode == 125
    assert done.stderr.startswith("strongroom: Permission denied (")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("vm", "stop", "ward"),
            "VM ward was stopped while the program ran: start it with `strongroom vm start ward`",
        ),
        (("vm", "restart", "ward"), "VM ward was restarted while the program ran: run it again"),
        (
            ("vm", "delete", "--force", "ward"),
            "VM ward was deleted while the program ran: make another with `strongroom vm create ward`",
        ),
        (
            ("daemon", "stop"),
            "the daemon was stopped while the program ran: run it again: the daemon starts by itself",
        ),
    ],
    ids=lambda words: words[1] if isinstance(words, tuple) else "",
)
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_who_ended_a_run(command: Command, image: Path, verb: str, words: tuple[str, ...], said: str) -> None:
    assert command("vm", "create", "ward").returncode == 0
    program = [str(image)] if verb == "run" else ["--", str(command.native / "strongroom-loader")]
    with command.popen(verb, "--vm", "ward", *program, "--", "sleep", "1000") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "asleep\n"
        done = command(*words)
        assert done.returncode == 0, done.stderr
        assert process.wait(20) == 125
        assert process.stderr.read().splitlines()[-1] == f"strongroom: {said}"
