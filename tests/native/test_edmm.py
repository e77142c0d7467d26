"""SGX2 (EDMM): EAUG, EACCEPT, EACCEPTCOPY, EMODPE inside; the three ioctls outside, with Linux's errnos."""

from __future__ import annotations

from dataclasses import replace

import images
import pytest
from elftools.elf.elffile import ELFFile
from native_machine import Machine

from support.package_server import PackageServer, package_server

R, W, X = 1, 2, 4
PENDING, MODIFIED, PR = 8, 0x10, 0x20
TCS, REG, TRIM = 0x100, 0x200, 0x400
FRESH = REG | PENDING | R | W
ROOM = 0x2000000
MISMATCH = "0x13"


@pytest.fixture(scope="module")
def wide(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """An image with a TCS for each fault of a test."""
    directory = tmp_path_factory.mktemp("wide")
    image, signature = directory / "e.sgxs", directory / "e.sig"
    mrenclave = images.build_image(image, threads=16)
    images.sign_image(mrenclave, signature, machine.signer)
    return replace(machine, image=image, signature=signature, mrenclave=mrenclave)


def play(server: PackageServer, machine: Machine, *steps: str, options: tuple[str, ...] = ()) -> list[str]:
    words = [str(images.BUILD / "edmm"), str(machine.image), str(machine.signature), hex(ROOM)]
    done = server.run(words, options, input="\n".join(steps).encode())
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode().splitlines()


def told(machine: Machine, *steps: tuple[str, str], **named: object) -> None:
    """Each step with what it is to say."""
    with package_server(sgx2=True, **named) as server:  # type: ignore[arg-type]
        said = play(server, machine, *(step for step, _ in steps))
        assert list(zip((step for step, _ in steps), said, strict=True)) == list(steps)
        server.join()
        assert server.epc.used_pages() == 0


def test_a_page_comes_when_it_is_accepted(wide: Machine) -> None:
    told(
        wide,
        ("read 0", "fault vector 14 error 0x4 at 0"),  # not mapped: no page
        ("map 0 8 3", "0"),
        ("read 0", "fault vector 14 error 0x8005 at 0"),  # added, pending
        ("read 0", "fault vector 14 error 0x8005 at 0"),
        (f"accept 0 {REG | PENDING | R:x}", MISMATCH),
        (f"accept 0 {FRESH:x}", "0"),
        ("read 0", "0"),
        ("write 0 1234", "0"),
        ("read 0", "0x1234"),
        (f"accept 0 {FRESH:x}", MISMATCH),  # no longer pending
        (f"accept 1 {FRESH:x}", "0"),  # EAUG and EACCEPT at once
        ("write 1 5", "0"),
        ("read 1", "0x5"),
    )


@pytest.mark.parametrize(
    "flags", [REG | R | W, FRESH | MODIFIED, TCS | PENDING, TRIM | R, 0x300 | PENDING, FRESH | 0x40, 1 << 40]
)
def test_accept_of_nonsense_is_gp(wide: Machine, flags: int) -> None:
    told(wide, ("map 0 1 3", "0"), (f"accept 0 {flags:x}", "fault vector 13 error 0 at 0"))


def test_permissions_go_and_come(wide: Machine) -> None:
    told(
        wide,
        ("map 0 8 7", "0"),
        ("restrict 0 1 1", "EFAULT count 0 result 0"),  # no page
        (f"accept 0 {FRESH:x}", "0"),
        ("write 0 7", "0"),
        ("restrict 0 1 1", "0 count 0x1000 result 0"),
        ("read 0", "0x7"),
        ("write 0 8", "fault vector 14 error 0x8007 at 0"),
        (f"accept 0 {REG | PR | R:x}", "0"),
        ("write 0 8", "fault vector 14 error 0x8007 at 0"),
        ("restrict 0 1 3", "0 count 0x1000 result 0"),  # does not give back
        ("write 0 8", "fault vector 14 error 0x8007 at 0"),
        (f"extend 0 {REG | R | W:x}", "0x6"),
        ("write 0 8", "0"),
        ("read 0", "0x8"),
        ("restrict 0 1 2", "EINVAL count 0 result 0"),
        ("restrict 0 1 8", "EINVAL count 0 result 0"),
        ("restrict 0 0 1", "EINVAL count 0 result 0"),
        ("read 1", "fault vector 14 error 0x8005 at 0x1000"),
        ("restrict 0 2 1", "EFAULT count 0x1000 result 20"),  # the second is pending
    )


def test_code_made_at_run_time(wide: Machine) -> None:
    told(
        wide,
        ("map 0 8 7", "0"),
        (f"accept 0 {FRESH:x}", "0"),
        ("write 0 c30000002ab8", "0"),  # mov $42, %eax; ret
        ("call 0", "fault vector 14 error 0x8015 at 0"),
        (f"extend 0 {REG | R | X:x}", "0x6"),
        ("call 0", "0x2a"),
        ("write 0 c30000002bb8", "0"),
        ("call 0", "0x2b"),
        (f"copy 1 {REG | R | X:x} 0", "0"),
        ("call 1", "0x2b"),
        ("write 1 0", "fault vector 14 error 0x8007 at 0x1000"),  # R and X: as the SECINFO says, no more
        (f"copy 1 {REG | R | X:x} 0", MISMATCH),
        (f"copy 2 {REG | W:x} 0", "fault vector 13 error 0 at 0"),
        (f"copy 2 {REG | R:x} 5", "fault vector 14 error 0x8005 at 0x5000"),  # comes, and is pending
    )


def test_pages_are_trimmed_and_removed(wide: Machine) -> None:
    told(
        wide,
        ("map 0 8 3", "0"),
        (f"accept 0 {FRESH:x}", "0"),
        ("write 0 7", "0"),
        ("remove 0 1", "EPERM count 0 result 0"),
        ("types 0 1 2", "EINVAL count 0 result 0"),
        ("types 0 1 4", "0 count 0x1000 result 0"),
        ("read 0", "fault vector 14 error 0x8005 at 0"),
        ("remove 0 1", "EPERM count 0 result 0"),  # not accepted yet
        (f"accept 0 {TRIM | MODIFIED:x}", "0"),
        ("types 0 1 4", "EINVAL count 0 result 0"),
        ("remove 0 1", "0 count 0x1000 result 0"),
        ("remove 0 1", "EFAULT count 0 result 0"),
        (f"accept 0 {FRESH:x}", "0"),  # a new page, zero
        ("read 0", "0"),
    )


def test_a_thread_is_added(wide: Machine) -> None:
    with (images.BUILD / "enclave.elf").open("rb") as file:
        entry = ELFFile(file)["e_entry"]
    told(
        wide,
        ("map 0 8 3", "0"),
        (f"accept 0 {FRESH:x}", "0"),
        (f"tcs 0 {entry:x}", "written"),
        ("enter 0", "ret 0 function 2 vector 14 error 0x8005 out 0"),
        ("types 0 1 1", "0 count 0x1000 result 0"),
        ("enter 0", "ret 0 function 2 vector 14 error 0x8005 out 0"),  # not accepted yet
        (f"accept 0 {TCS | MODIFIED:x}", "0"),
        ("enter 0", "ret 0 function 4 vector 0 error 0 out 42"),
        ("read 0", "fault vector 14 error 0x8005 at 0"),
        (f"accept 1 {FRESH:x}", "0"),
        ("types 1 1 1", "0 count 0x1000 result 0"),  # zero: NSSA is 0
        (f"accept 1 {TCS | MODIFIED:x}", "fault vector 13 error 0 at 0"),
        ("types 0 1 4", "0 count 0x1000 result 0"),
        (f"accept 0 {TRIM | MODIFIED:x}", "0"),
        ("remove 0 1", "0 count 0x1000 result 0"),
    )


def test_an_exit_whose_frame_is_gone_ends_the_enclave(wide: Machine) -> None:
    """The SSA frame of a thread inside is trimmed, accepted and removed: at its next asynchronous exit its state has
    no place, so the enclave is lost. The thread's host comes out of it with its own stack."""
    with (images.BUILD / "enclave.elf").open("rb") as file:
        entry = ELFFile(file)["e_entry"]
    told(
        wide,
        ("map 0 10 3", "0"),
        *((f"accept {page} {FRESH:x}", "0") for page in (3, 5, 6, 7)),
        (f"tcs 3 {entry:x}", "written"),
        (f"put 3 10 {ROOM + 5 * 0x1000:x}", "0"),  # OSSA: pages 5, 6, 7
        ("types 3 1 1", "0 count 0x1000 result 0"),
        (f"accept 3 {TCS | MODIFIED:x}", "0"),
        ("stay 3", "inside"),
        ("types 5 1 4", "0 count 0x1000 result 0"),
        (f"accept 5 {TRIM | MODIFIED:x}", "0"),
        ("remove 5 1", "0 count 0x1000 result 0"),
        ("interrupt", "ret 0 function 3 vector 14 error 0x8005"),
        (
            f"accept 8 {FRESH:x}",
            f"fault vector 14 error 0x8005 at {(1 << 64) - ROOM + images.THREAD_BASE:#x}",
        ),
    )


def test_under_epc_pressure(wide: Machine) -> None:
    told(wide, ("map 0 800 3", "0"), ("sweep 0 500", "bad 0"), ("sweep 500 300", "bad 0"), epc_pages=400)


def test_without_sgx2(wide: Machine) -> None:
    with package_server() as server:
        assert play(
            server, wide, "map 0 8 3", f"accept 0 {FRESH:x}", "restrict 0 1 1", "types 0 1 4", "remove 0 1"
        ) == [
            "0",
            "fault vector 13 error 0 at 0",
            *["ENODEV count 0 result 0"] * 3,
        ]
