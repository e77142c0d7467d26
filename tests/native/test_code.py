"""Pages that can be written and executed: code made at run time, by several threads, paged; what root has of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import images
import pytest
from native_machine import Machine
from test_edmm import play
from test_enclave import BACKINGS

from strongroom.machine.level import find_facts
from support.package_server import package_server

PAGES = 600
FIRST, SECOND = "c30000002ab8", "c30000002bb8"  # mov $42, %eax; ret, and 43
NEEDS_AES = pytest.mark.skipif(
    " aes " not in Path("/proc/cpuinfo").read_text(), reason="this processor has no AES-NI: nothing is paged"
)


@pytest.fixture(scope="module")
def coder(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """An image with pages of code to come, on SGX1: they are in it."""
    directory = tmp_path_factory.mktemp("coder")
    directory.chmod(0o755)
    image, signature = directory / "e.sgxs", directory / "e.sig"
    mrenclave = images.build_image(image, threads=16, code_pages=PAGES)
    images.sign_image(mrenclave, signature, machine.signer)
    return replace(machine, image=image, signature=signature, mrenclave=mrenclave)


def told(
    machine: Machine,
    *steps: tuple[str, str],
    options: tuple[str, ...] = (),
    **named: object,
) -> None:
    with package_server(**named) as server:  # type: ignore[arg-type]
        said = play(server, machine, *(step for step, _ in steps), options=options)
        assert list(zip((step for step, _ in steps), said, strict=True)) == list(steps)
        server.join()
        assert server.epc.used_pages() == 0


@BACKINGS
def test_code_is_written_run_and_written_again(coder: Machine, options: tuple[str, ...]) -> None:
    told(
        coder,
        ("read 0", "0"),
        (f"write 0 {FIRST}", "0"),
        ("call 0", "0x2a"),
        ("read 0", f"0x{FIRST}"),
        ("call 0", "0x2a"),
        (f"write 0 {SECOND}", "0"),
        ("call 0", "0x2b"),
        (f"write 3 {FIRST}", "0"),
        ("call 3", "0x2a"),
        ("read 0", f"0x{SECOND}"),
        options=options,
    )


@BACKINGS
def test_one_thread_writes_what_another_runs(coder: Machine, options: tuple[str, ...]) -> None:
    told(coder, ("race 0 12c", "wrong 0 last 0x12c"), ("race 1 12c", "wrong 0 last 0x12c"), options=options)


def test_code_that_writes_its_own_page(coder: Machine) -> None:
    told(coder, ("own 0 64", "0x64"), ("own 1 1", "0x1"))


@NEEDS_AES
@BACKINGS
def test_code_is_paged(coder: Machine, options: tuple[str, ...]) -> None:
    """Data in the pages, code in them, and one that has become both: all come back as they went."""
    told(
        coder,
        (f"write 0 {FIRST}", "0"),
        ("call 0", "0x2a"),
        ("own 1 64", "0x64"),
        ("sweep-plain 8 250", "bad 0"),  # a window of pages larger than the EPC
        ("call 0", "0x2a"),
        ("own 1 1", "0x65"),
        (f"write 0 {SECOND}", "0"),
        ("sweep-plain 8 250", "bad 0"),
        ("call 0", "0x2b"),
        ("race 2 c8", "wrong 0 last 0xc8"),
        options=options,
        epc_pages=300,
    )


@pytest.mark.skipif(
    not find_facts().secret_memory, reason="no secret memory here: root reads and writes all data"
)
def test_root_reads_code_and_does_not_write_it(coder: Machine) -> None:
    """By /proc/PID/mem: secret data is refused; code is had, and written only where it stays writable."""
    told(
        coder,
        (f"write 0 {FIRST}", "0"),
        (f"outside 0 {FIRST}", "control 1 read 0 written 0"),
        ("call 0", "0x2a"),
        (f"outside 0 {FIRST}", "control 1 read 1 written 0"),
        (f"write 0 {SECOND}", "0"),
        (f"outside 0 {SECOND}", "control 1 read 0 written 0"),
        ("call 0", "0x2b"),
        ("own 0 64", "0x64"),  # too fast: mapped both ways from then on
        ("outside 0 480000000905ff48", "control 1 read 1 written 1"),
    )


def test_permissions_that_come_and_go(coder: Machine) -> None:
    """On SGX2 such a page loses W or X, and gets it again."""
    restrict, extend = "0 count 0x1000 result 0", "0x6"
    told(
        coder,
        (f"write 0 {FIRST}", "0"),
        ("call 0", "0x2a"),
        ("restrict 0 1 5", restrict),
        (f"write 0 {SECOND}", "fault vector 14 error 0x8007 at 0"),
        ("call 0", "0x2a"),
        ("extend 0 203", extend),
        (f"write 0 {SECOND}", "0"),
        ("call 0", "0x2b"),
        ("restrict 0 1 3", restrict),
        ("call 0", "fault vector 14 error 0x8015 at 0"),
        (f"write 0 {FIRST}", "0"),
        ("extend 0 205", extend),
        ("call 0", "0x2a"),
        ("types 0 1 4", restrict),
        ("accept 0 410", "0"),
        ("remove 0 1", "0 count 0x1000 result 0"),
        ("accept 0 20b", "0"),
        ("read 0", "0"),
        (f"write 0 {SECOND}", "0"),
        ("call 0", "fault vector 14 error 0x8015 at 0"),
        ("extend 0 205", extend),
        ("call 0", "0x2b"),
        sgx2=True,
    )
