"""C programs inside: static and dynamic, and system calls as Linux answers them. The same checks run outside too."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.guests import GUESTS, Guests, Outcome, checks_of
from support.programs import HELLO, compile_c

CALLS, WAITING, UNMAPPED, WIDE = "system_calls.c", "waiting.c", "unmapped.c", "loads_wide.c"
LOCAL, ADDRESSES, MOVING = "local_sockets.c", "addresses.c", "moving.c"
INSIDE, FIFO = "inside.c", "fifo.c"


def compiled(directory: Path, guest: str, name: str, *options: str) -> Path:
    source = (GUESTS / guest).read_text()
    return compile_c(
        directory, name, source, f"-I{GUESTS}", "-Wall", "-Wextra", "-Werror", "-pthread", *options
    )


@pytest.fixture(scope="module", params=["dynamic", "static"])
def calls(
    request: pytest.FixtureRequest, guests: Guests, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    options = ["-static"] if request.param == "static" else []
    program = compiled(tmp_path_factory.mktemp("calls"), CALLS, "calls", *options)
    manifest = '[enclave]\nmain = "calls"\nmemory = "32M"\nthreads = 8\n'
    return Outcome.of(guests.run(guests.build(f"calls-{request.param}", {"calls": program}, manifest)))


@pytest.mark.parametrize("check", checks_of(CALLS))
def test_system_calls(calls: Outcome, check: str) -> None:
    calls.assert_ok(check)


def static_guest(
    guests: Guests, tmp_path_factory: pytest.TempPathFactory, source: str, lines: str, timeout: float
) -> Outcome:
    """A guest program, linked statically, run to its end under the manifest's ``lines``."""
    name = source.removesuffix(".c")
    program = compiled(tmp_path_factory.mktemp(name), source, name, "-static")
    manifest = f'[enclave]\nmain = "{name}"\n{lines}\n'
    return Outcome.of(guests.run(guests.build(name, {name: program}, manifest), timeout=timeout))


@pytest.fixture(scope="module")
def waiting(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return static_guest(
        guests, tmp_path_factory, WAITING, 'memory = "8M"\nthreads = 4\nnetwork = true', timeout=30
    )


@pytest.mark.parametrize("check", checks_of(WAITING))
def test_waiting(waiting: Outcome, check: str) -> None:
    waiting.assert_ok(check)


@pytest.fixture(scope="module")
def unmapped(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return static_guest(
        guests, tmp_path_factory, UNMAPPED, 'memory = "24M"\nthreads = 4\nnetwork = true', timeout=30
    )


@pytest.mark.parametrize("check", checks_of(UNMAPPED))
def test_unmapped(unmapped: Outcome, check: str) -> None:
    unmapped.assert_ok(check)


@pytest.fixture(scope="module")
def moving(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return static_guest(
        guests, tmp_path_factory, MOVING, 'memory = "16M"\nthreads = 4\nnetwork = true', timeout=60
    )


@pytest.mark.parametrize("check", checks_of(MOVING))
def test_moving(moving: Outcome, check: str) -> None:
    moving.assert_ok(check)


@pytest.fixture(scope="module")
def local(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return static_guest(
        guests, tmp_path_factory, LOCAL, 'memory = "24M"\nthreads = 4\nnetwork = true', timeout=60
    )


@pytest.mark.parametrize("check", checks_of(LOCAL))
def test_local_sockets(local: Outcome, check: str) -> None:
    local.assert_ok(check)


@pytest.fixture(scope="module")
def addresses(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return static_guest(guests, tmp_path_factory, ADDRESSES, 'memory = "8M"\nthreads = 1', timeout=30)


@pytest.mark.parametrize("check", checks_of(ADDRESSES))
def test_addresses(addresses: Outcome, check: str) -> None:
    addresses.assert_ok(check)


@pytest.fixture(scope="module")
def inside(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return static_guest(
        guests, tmp_path_factory, INSIDE, 'memory = "32M"\nthreads = 1\nnetwork = true', timeout=60
    )


@pytest.mark.parametrize("check", checks_of(INSIDE))
def test_inside(inside: Outcome, check: str) -> None:
    inside.assert_ok(check)


@pytest.mark.parametrize("name", [CALLS, WAITING, UNMAPPED, MOVING, LOCAL, ADDRESSES])
def test_control(name: str, tmp_path: Path) -> None:
    """Linux itself answers so; what the guest expects is not this LibOS's own idea."""
    program = compiled(tmp_path, name, "calls")
    done = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert Outcome.of(done).said == dict.fromkeys(checks_of(name), ""), done.stderr


def run_fifo(run: Callable[[Path], subprocess.CompletedProcess[str]], fifo: Path) -> None:
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    outcome = Outcome.of(run(fifo))
    for check in checks_of(FIFO):
        outcome.assert_ok(check)


def test_fifo_of_the_host(guests: Guests, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """Both ends are opened by threads of the enclave: the first waits for the other, and nobody else does."""
    program = compiled(tmp_path, FIFO, "fifo", "-static")
    with tempfile.TemporaryDirectory(prefix="sr-fifo-") as folder:
        Path(folder).chmod(0o777)
        manifest = (
            '[enclave]\nmain = "fifo"\nargs = true\nmemory = "8M"\nthreads = 4\n'
            f'[files]\n"/host" = "allowed:{folder}"\n'
        )
        project = guests.build("fifo", {"fifo": program}, manifest)
        run_fifo(lambda fifo: guests.run(project, f"/host/{fifo.name}", timeout=30), Path(folder) / "fifo")


def test_fifo_control(tmp_path: Path) -> None:
    program = compiled(tmp_path, FIFO, "program")
    run_fifo(
        lambda fifo: subprocess.run([program, fifo], capture_output=True, text=True, timeout=30),
        tmp_path / "fifo",
    )


def test_hello_static(guests: Guests, tmp_path: Path) -> None:
    program = compile_c(tmp_path, "hello", HELLO, "-static")
    done = guests.run(
        guests.build("hello", {"hello": program}, '[enclave]\nmain = "hello"\nmemory = "1M"\nthreads = 1\n')
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_library_of_wide_alignment(guests: Guests, tmp_path: Path) -> None:
    page_size = "-Wl,-z,max-page-size=0x200000,-z,noseparate-code"
    library = compile_c(
        tmp_path, "libwide.so", (GUESTS / "wide.c").read_text(), "-shared", "-fPIC", page_size
    )
    program = compiled(tmp_path, WIDE, "loads")
    files: dict[str, str | bytes | Path] = {"loads": program, "libwide.so": library}
    outcome = Outcome.of(
        guests.run(guests.build("wide", files, '[enclave]\nmain = "loads"\nmemory = "8M"\n'))
    )
    for check in checks_of(WIDE):
        outcome.assert_ok(check)
    assert outcome.status == 0
