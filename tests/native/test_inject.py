"""What meets the injector: signals at every moment of a start, a tracer that was there first, requests of strangers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from native_machine import Machine
from test_follow import ENTERED, follow, injectors, loader

TRACER = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, CONT, SEIZE = 0, 7, 0x4206
pid = 0
if sys.argv[1] == "start":
    pid = os.fork()
    if not pid:
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(sys.argv[2], sys.argv[2:])
else:
    pid = int(sys.argv[2])
    assert libc.ptrace(SEIZE, pid, None, None) == 0, ctypes.get_errno()
    print("attached", flush=True)
while True:
    try:
        _, status = os.waitpid(pid, 0x40000000)
    except ChildProcessError:
        break
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
    if os.WIFSIGNALED(status):
        sys.exit(128 + os.WTERMSIG(status))
    number = os.WSTOPSIG(status)
    libc.ptrace(CONT, pid, None, 0 if number == signal.SIGTRAP else number)
"""
"""A debugger that lets all go on: of a program that it starts, or of one that runs."""


def traced(machine: Machine, program: list[str], *options: str) -> subprocess.CompletedProcess[bytes]:
    rpc, _ = machine.server.connect()
    with rpc:
        command = machine.server.command(rpc.fileno(), program, options)
        return subprocess.run(
            [sys.executable, "-c", TRACER, "start", *command],
            pass_fds=(rpc.fileno(), machine.server.epc.descriptor),
            capture_output=True,
            timeout=30,
            check=False,
        )


@pytest.mark.parametrize("options", [(), ("--guard",), ("--follow",)])
def test_a_debugger_that_was_there_first_gets_no_enclave(machine: Machine, options: tuple[str, ...]) -> None:
    """A process has one tracer: the injector is refused, says so, and the program does not start."""
    done = traced(machine, loader(machine), *options)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"strongroom-inject: ptrace is refused here"), done.stderr


def test_the_control_of_that(machine: Machine) -> None:
    """The same tracer and a program without an injector."""
    done = subprocess.run(
        [sys.executable, "-c", TRACER, "start", "/bin/echo", "traced"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"traced\n")


@contextmanager
def waiting_shell(machine: Machine, then: str) -> Iterator[subprocess.Popen[bytes]]:
    """A followed shell that reads a line, and then does ``then``."""
    with machine.server.lines() as lines:
        rpc, _ = machine.server.connect()
        options = ("--follow", "--line-fd", str(lines.fileno()))
        command = machine.server.command(
            rpc.fileno(), ["/bin/sh", "-c", f"echo ready; read x; {then}"], options
        )
        with (
            rpc,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(rpc.fileno(), machine.server.epc.descriptor, lines.fileno()),
            ) as shell,
        ):
            assert shell.stdout is not None and shell.stdout.readline() == b"ready\n"
            yield shell


def test_a_debugger_that_comes_before_an_exec_stops_it(machine: Machine) -> None:
    """The program runs on under its debugger; what it executes would have no library, so execve is EPERM."""
    with waiting_shell(machine, f"exec {' '.join(loader(machine))}") as shell:
        with subprocess.Popen(
            [sys.executable, "-c", TRACER, "attach", str(shell.pid)], stdout=subprocess.PIPE
        ) as tracer:
            assert tracer.stdout is not None and tracer.stdout.readline() == b"attached\n"
            out, err = shell.communicate(b"\n", timeout=30)
            tracer.wait(30)
    assert (shell.returncode, out) == (126, b"")
    assert b"Operation not permitted" in err


ASKER = """
import os, socket, struct, sys
name, tid = sys.argv[1], int(sys.argv[2]) or os.getpid()
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect("\\0" + name)
client.send(struct.pack("<IIIIQ", 1, os.getpid() if tid == os.getpid() else 0, tid, 0, 0))
print(struct.unpack("<iI", client.recv(8))[0], flush=True)
status = open(f"/proc/{tid}/status").read()
print(int(status.split("TracerPid:")[1].split()[0]) != 0, flush=True)
"""
"""Asks an injector to trace a thread, as the library does before an execve; the answer, and whether it is traced."""


def socket_of(injectors_of_ours: set[int]) -> str:
    """The abstract name on which one of these processes listens."""
    inodes = set()
    for pid in injectors_of_ours:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            link = os.readlink(entry)
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) == 8 and words[6] in inodes and words[7].startswith("@strongroom-follow-"):
            return words[7][1:]
    raise AssertionError("no injector listens")


def test_only_the_own_process_may_be_asked_for(machine: Machine) -> None:
    before = injectors()
    with waiting_shell(machine, "exit 0") as shell, subprocess.Popen(["/bin/sleep", "30"]) as stranger:
        name = socket_of(injectors() - before)

        def ask(tid: int) -> list[str]:
            words = [sys.executable, "-c", ASKER, name, str(tid)]
            return subprocess.run(
                words, capture_output=True, text=True, timeout=20, check=False
            ).stdout.split()

        got = ask(stranger.pid)
        of_thread_one = ask(1)
        control = ask(0)  # itself: what the library asks for
        stranger.kill()
        shell.communicate(b"\n", timeout=20)
    assert control == ["0", "True"]
    assert got == ["1", "False"]  # EPERM
    assert of_thread_one[0] == "1"


@pytest.mark.parametrize("options", [(), ("--guard",)])
def test_signals_at_every_moment_of_a_start(machine: Machine, options: tuple[str, ...]) -> None:
    """SIGWINCH, which nobody handles, as fast as it can be sent: under a tracer each is a stop, and none may pass for
    the end of a step."""
    for _ in range(25):
        rpc, _ = machine.server.connect()
        command = machine.server.command(rpc.fileno(), loader(machine), options)
        with (
            rpc,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(rpc.fileno(), machine.server.epc.descriptor),
            ) as process,
        ):
            over = threading.Event()

            def storm(process: subprocess.Popen[bytes] = process, over: threading.Event = over) -> None:
                while not over.is_set() and process.poll() is None:
                    process.send_signal(signal.SIGWINCH)

            sender = threading.Thread(target=storm)
            sender.start()
            out, err = process.communicate(timeout=60)
            over.set()
            sender.join()
        assert (process.returncode, out, err) == (0, ENTERED.encode(), b"")


def test_signals_at_every_moment_of_a_followed_start(machine: Machine) -> None:
    """The same for what a program executes: the shell's ignored signal reaches its child from the fork on."""
    storm = "(while :; do kill -WINCH 0; done) &"
    run = f"i=0; while [ $i -lt 10 ]; do {' '.join(loader(machine))}; i=$((i+1)); done"
    words = ["/usr/bin/setsid", "-w", "/bin/sh", "-c", f"trap '' WINCH; {storm} {run}; kill $!"]
    status, out, err = follow(machine, *words)
    assert (status, out, err) == (0, ENTERED * 10, "")
