"""Hosts that stray from the path, by design or by mistake: stale memory, signals at bad moments, forks, copies."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from native_machine import Machine

from support.package_server import PackageServer, package_server

HEAP_PAGES = 256


class Stray:
    """The program, with an enclave that has a heap."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.image, self.signature = directory / "h.sgxs", directory / "h.sig"
        mrenclave = images.build_image(self.image, heap_pages=HEAP_PAGES)
        images.sign_image(mrenclave, self.signature, machine.signer)

    def run(
        self,
        server: PackageServer,
        what: str,
        argument: object = 0,
        options: tuple[str, ...] = (),
        **more: object,
    ) -> list[str]:
        words = [str(images.BUILD / "stray"), what, str(self.image), str(self.signature), str(argument)]
        done = server.run(words, options, **{"timeout": 60, **more})  # type: ignore[arg-type]
        assert (done.returncode, done.stderr) == (0, b""), (done.returncode, done.stdout, done.stderr)
        return done.stdout.decode().splitlines()


@pytest.fixture(scope="module")
def stray(machine: Machine) -> Iterator[Stray]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        directory = Path(folder)
        directory.chmod(0o755)
        yield Stray(machine, directory)


@pytest.mark.parametrize("level", [(), ("--level", "separated"), ("--no-secretmem",)])
@pytest.mark.parametrize("warm", ["512:512", "512:0", "0:512", "4096:4096"])
def test_what_is_run_is_what_was_measured(
    machine: Machine, stray: Stray, warm: str, level: tuple[str, ...]
) -> None:
    """Memory touched ahead, of an enclave that ended before it was shown: the next one at its address has its own."""
    options = ("--warm", warm, *level)
    expected = ["ret 0 function 4 vector 0 out 0x2a", "ret 0 function 4 vector 0 sum 0"]
    for before in (0, 1):
        assert stray.run(machine.server, "stale", before, options) == expected


@pytest.mark.parametrize("name", ["SIGALRM", "SIGTRAP", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS"])
def test_a_signal_during_eviction_waits(stray: Stray, name: str) -> None:
    """The handler that evicts and loads stands on another stack then: one more frame must not land on its own."""
    with package_server(epc_pages=200) as server:
        assert stray.run(server, "signals", int(signal.Signals[name])) == ["ended"]
        server.join()
        assert server.last_usage is not None and server.last_usage.evicted > HEAP_PAGES


def test_a_child_faults_while_its_parent_adds_pages(machine: Machine, stray: Stray) -> None:
    """The lock was held as it was forked: the child's fault is its program's all the same."""
    if os.geteuid() == 0:
        options: tuple[str, ...] = ("--level", "separated")
    else:
        options = ()
    assert stray.run(machine.server, "forks", options=options) == ["handled 20 hung 0"]


def test_no_copy_of_the_enclaves_mapping(machine: Machine, stray: Stray) -> None:
    assert stray.run(machine.server, "copies") == ["page 0: EINVAL", "page 1: EINVAL"]


def test_a_look_at_a_tcs_leaves_nothing_there(machine: Machine, stray: Stray) -> None:
    inside = "inside: function 3 vector 14 error 0x8005"
    assert stray.run(machine.server, "tcs", 0) == [inside]
    assert stray.run(machine.server, "tcs", 1) == ["outside 0xffffffffffffffff", inside]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become a user whose RLIMIT_MEMLOCK counts")
def test_secret_memory_within_a_limit_is_given_back(stray: Stray) -> None:
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
    try:
        with package_server() as server:
            lines = stray.run(server, "budget", 8, user=65534)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)
    secret = {tuple(map(int, line.split())) for line in lines}
    if not any(first for first, _ in secret):
        pytest.skip("this kernel gives no secret memory")
    assert len(secret) == 1
