"""Python inside: what it does as outside, and how a program ends."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guests import Guests, Outcome, checks_of, outside

GUEST = "python_checks.py"


@pytest.fixture(scope="module")
def outcome(guests: Guests) -> Outcome:
    return guests.checks(GUEST, 'memory = "48M"\nthreads = 8\n')


@pytest.mark.parametrize("check", checks_of(GUEST))
def test_check(outcome: Outcome, check: str) -> None:
    outcome.assert_ok(check)


def test_control() -> None:
    control = outside(GUEST)
    assert control.said == dict.fromkeys(checks_of(GUEST), ""), control.stderr


@pytest.fixture(scope="module")
def bare(guests: Guests) -> Path:
    """The interpreter itself: each test brings its own lines."""
    return guests.build("bare", {}, '[enclave]\nmain = "python3"\nargs = true\nmemory = "24M"\nthreads = 3\n')


@pytest.fixture(scope="module")
def networked(guests: Guests) -> Path:
    manifest = '[enclave]\nmain = "python3"\nargs = true\nmemory = "24M"\nthreads = 3\nnetwork = true\n'
    return guests.build("networked", {}, manifest)


@pytest.mark.parametrize(
    ("code", "status", "out", "error"),
    [
        ("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)", 7, "out\n", "err"),
        ("import os; os.write(1, b'raw'); os._exit(3)", 3, "raw", ""),
        ("1 // 0", 1, "", "ZeroDivisionError: integer division or modulo by zero"),
        ("import sys; sys.exit('said')", 1, "", "said"),
        ("b'x' * (1 << 30)", 1, "", "MemoryError"),
        ("import ctypes; ctypes.string_at(8)", 139, "", "strongroom: segmentation fault inside the enclave"),
        ("import os; os.abort()", 134, "", ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, "", ""),
        ("def f(n): return f(n + 1)\nf(0)", 1, "", "RecursionError: maximum recursion depth exceeded"),
        ("print(input() + '!')", 0, "typed!\n", ""),
    ],
    ids=[
        "exit",
        "_exit",
        "traceback",
        "message",
        "memory",
        "segfault",
        "abort",
        "sigterm",
        "recursion",
        "stdin",
    ],
)
def test_ends(guests: Guests, bare: Path, code: str, status: int, out: str, error: str) -> None:
    done = guests.run(bare, "-c", code, stdin="typed\n")
    assert (done.returncode, done.stdout) == (status, out), done.stderr
    assert error in done.stderr


def test_another_process_is_refused_by_name(guests: Guests, bare: Path) -> None:
    """fork, and what subprocess does: ENOSYS, and a line that names who asked."""
    code = """
import os, subprocess
for attempt in (os.fork, lambda: subprocess.run(["/bin/true"]), lambda: os.execv("/usr/bin/python3", ["python3"])):
    try: attempt()
    except OSError as error: print(error.errno)
"""
    done = guests.run(bare, "-c", code)
    assert done.stdout == "38\n38\n38\n", done.stderr
    said = [line for line in done.stderr.splitlines() if "refused" in line]
    # subprocess tries vfork, then fork.
    assert [line.split()[1] for line in said] == ["fork", "vfork", "fork", "execve"]
    assert all("asked for by " in line for line in said)
    # The object that asked: an extension module, or an interpreter that has it built in (Debian's).
    assert any(f"asked for by {name}" in said[1] for name in ("_posixsubprocess", "python3", "libpython3"))


def test_threads_above_the_manifests(guests: Guests, bare: Path) -> None:
    """`threads` counts all of them; one more is an error in Python, and one line says what to raise."""
    code = """
import threading
stop = threading.Event()
started = []
try:
    for _ in range(5):
        threading.Thread(target=stop.wait).start(); started.append(1)
except RuntimeError as error: print(error, len(started))
stop.set()
"""
    done = guests.run(bare, "-c", code)
    assert done.stdout == "can't start new thread 2\n", done.stderr
    assert done.stderr.count("a thread is refused: threads = 3 in enclave.toml are all in use: raise it") == 1
    assert done.returncode == 0


def test_memory_above_the_manifests(guests: Guests, bare: Path) -> None:
    """A library seldom leads to the manifest: one line does. Who only reserves addresses is told nothing."""
    code = """
import ctypes, sys
mmap = ctypes.CDLL(None).mmap
mmap.restype, mmap.argtypes = ctypes.c_size_t, [ctypes.c_size_t] * 6
print(mmap(0, 1 << 40, 0, 0x22, 2**64 - 1, 0) == 2**64 - 1, mmap(0, 1 << 40, 3, 0x4022, 2**64 - 1, 0) == 2**64 - 1)
print("reserved", file=sys.stderr, flush=True)
for _ in range(2):
    try: bytearray(1 << 30)
    except MemoryError: print("no memory")
"""
    done = guests.run(bare, "-c", code)
    assert done.stdout == "True True\nno memory\nno memory\n", done.stderr
    lines = done.stderr.splitlines()
    assert lines.index("reserved") == 1 and len(lines) == 3
    assert re.fullmatch(
        r"strongroom: out of memory: 10485\d\d KiB are asked for, \d+ KiB are free, \d+ KiB of them together: "
        r"raise memory in enclave.toml \(it is \d+ KiB\)",
        lines[2],
    )


SOCKETS = """
import socket, json
def attempt(*words):
    try: socket.socket(*words).close(); return 0
    except OSError as error: return error.errno
print(json.dumps([attempt(socket.AF_INET), attempt(socket.AF_INET6, socket.SOCK_DGRAM), attempt(socket.AF_UNIX)]))
"""


def test_sockets_without_network(guests: Guests, bare: Path) -> None:
    """EACCES for what would leave the enclave; what stays inside needs no leave."""
    done = guests.run(bare, "-c", SOCKETS)
    assert json.loads(done.stdout) == [13, 13, 0]
    line = "strongroom: a socket is refused: it needs network = true in enclave.toml\n"
    assert done.stderr.count(line) == 1 and done.stderr.endswith(line), done.stderr
    lists = "import socket; print(bool(socket.if_nameindex()))"
    assert (
        "socket is refused" not in guests.run(bare, "-c", lists).stderr
    )  # no program's wish for the network


def test_sockets_with_network(guests: Guests, networked: Path) -> None:
    done = guests.run(networked, "-c", SOCKETS)
    assert json.loads(done.stdout) == [0, 0, 0]
    assert "refused" not in done.stderr
    code = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
def serve():
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(65536): connection.sendall(data.upper())
thread = threading.Thread(target=serve); thread.start()
with socket.create_connection(server.getsockname()) as client:
    sender = threading.Thread(target=lambda: (client.sendall(b"a" * 3_000_000), client.shutdown(socket.SHUT_WR)))
    sender.start()
    got = b""
    while data := client.recv(1 << 20): got += data
print(len(got), set(got))
"""
    done = guests.run(networked, "-c", code)
    assert done.stdout == "3000000 {65}\n", done.stderr


@contextlib.contextmanager
def watched(guests: Guests, project: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The project's program, running, for who sends it signals; it does not outlive a minute."""
    with subprocess.Popen(
        guests.run_command(project, *words), env=guests.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def test_ctrl_c_is_keyboard_interrupt(guests: Guests, bare: Path) -> None:
    code = """
import time
try:
    print("asleep", flush=True); time.sleep(100)
except KeyboardInterrupt: print("interrupted")
print("busy", flush=True)
while True: pass
"""
    with watched(guests, bare, "-c", code) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)  # no system call in sight
        assert process.wait(20) == 130
        assert process.stderr.read().splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.parametrize("how", ["raised", "sent"])
def test_an_interrupt_that_a_program_leaves_alone_is_130(guests: Guests, how: str) -> None:
    """As outside: the program is main, which `python3 -c` above is not."""
    main = "import time\nprint('up', flush=True)\n"
    main += "raise KeyboardInterrupt" if how == "raised" else "time.sleep(100)"
    project = guests.build(f"interrupt-{how}", {"main.py": main}, '[enclave]\nmain = "main.py"\n')
    with watched(guests, project) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "up\n"
        if how == "sent":
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        lines = process.stderr.read().splitlines()
        assert lines[1] == "Traceback (most recent call last):" and "/app/main.py" in lines[2], lines
        assert lines[-1] == "KeyboardInterrupt", lines
