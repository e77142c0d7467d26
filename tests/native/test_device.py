"""The driver's half: errnos, permissions, measurement, quota."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import tempfile
from pathlib import Path

import images
import pytest
from elftools.elf.elffile import ELFFile
from native_machine import Machine

from support.package_server import package_server


def test_permissions(machine: Machine) -> None:
    assert machine.host("permissions") == [
        "write to text EACCES",
        "mprotect text EACCES",
        "mprotect less done",
        "mprotect back done",
        "private EINVAL",
        "beyond EACCES",
        "ret 0 function 4 out 42",
    ]


def _measured_bytes(image: Path) -> list[int]:
    """One position in the data of each measured page."""
    data = image.read_bytes()
    at, found, page = 64, [], -1
    while at < len(data):
        tag = data[at : at + 8]
        if tag.startswith(b"EADD"):
            page += 1
            at += 64
            fresh = True
        else:
            if tag.startswith(b"EEXTEND") and fresh:
                found.append(at + 64 + (page * 37) % 256)
                fresh = False
            at += 320
    return found


def test_one_flipped_byte_in_any_measured_page(machine: Machine, tmp_path: Path) -> None:
    positions = _measured_bytes(machine.image)
    assert len(positions) >= 8
    for position in positions:
        altered = bytearray(machine.image.read_bytes())
        altered[position] ^= 1
        image = tmp_path / "altered.sgxs"
        image.write_bytes(altered)
        (line,) = machine.host("call", image=image, status=1)
        # A TCS that the change makes invalid is refused before: EADD faults.
        assert line in ("init: EPERM", "add: EIO")


def test_flipped_permission(machine: Machine, tmp_path: Path) -> None:
    """SECINFO is measured too."""
    altered = bytearray(machine.image.read_bytes())
    assert altered[64:68] == b"EADD"
    altered[80] ^= 2  # the first page: readable and executable, now writable as well
    image = tmp_path / "altered.sgxs"
    image.write_bytes(altered)
    assert machine.host("call", image=image, status=1) == ["init: EPERM"]


def test_unmeasured_page_may_change(machine: Machine, tmp_path: Path) -> None:
    image, signature = tmp_path / "u.sgxs", tmp_path / "u.sig"
    images.sign_image(images.build_image(image, unmeasured=True), signature, machine.signer)
    altered = bytearray(image.read_bytes())
    assert b"UNMEASRD" in altered
    altered[-1] ^= 1
    image.write_bytes(altered)
    assert machine.host("call", image=image, signature=signature) == ["ret 0 function 4 out 42"]


def test_signature_is_checked(machine: Machine, tmp_path: Path) -> None:
    altered = bytearray(machine.signature.read_bytes())
    altered[600] ^= 1
    signature = tmp_path / "altered.sig"
    signature.write_bytes(altered)
    assert machine.host("call", signature=signature, status=1) == ["init: EPERM"]


def test_portable_sha256_agrees(machine: Machine) -> None:
    assert machine.host("call", options=("--no-shani",)) == ["ret 0 function 4 out 42"]


def test_quota(tmp_path: Path, machine: Machine) -> None:
    """A VM whose EPC does not hold the pages that cannot be evicted (SECS, TCSs): ENOMEM, and all is given back."""
    with package_server(epc_pages=images.THREADS) as server:
        command = [str(images.BUILD / "host"), "call", str(machine.image), str(machine.signature)]
        done = server.run(command)
        assert (done.returncode, done.stdout) == (1, b"add: ENOMEM\n")
        server.join()
        assert server.epc.used_pages() == 0


@pytest.mark.parametrize("program", [["/bin/echo", "a b"], ["/bin/sh", "-c", "echo a b"]])
def test_ordinary_programs_run(machine: Machine, program: list[str]) -> None:
    assert machine.program(*program) == (0, "a b\n", "")


def test_status_and_signals_come_through(machine: Machine) -> None:
    assert machine.program("/bin/sh", "-c", "exit 7") == (7, "", "")
    assert machine.program("/bin/sh", "-c", "kill -TERM $$")[0] == -15
    status, _, err = machine.program("/nonexistent/program")
    assert status == 125
    assert err == "strongroom-inject: /nonexistent/program: No such file or directory\n"


def test_idle_enclave_reads_as_ones_and_drops_writes(machine: Machine) -> None:
    assert machine.host("tamper", "1") == [
        "read 0xffffffffffffffff",
        "inside 0x5ec7e7",
        "entry: ret 0 function 4 vector 0 error 0 addr 0",
        "inside 0x5ec7e7",
    ]


def test_tampering_disables_the_enclave(machine: Machine) -> None:
    """Entries are then refused as for a lost enclave: #PF with the SGX bit at EENTER; the package is told."""
    machine.server.events.clear()
    assert machine.host("tamper", "1", options=("--tamper=disable",)) == [
        "read 0xffffffffffffffff",
        "inside 0x5ec7e7",
        "entry: ret 0 function 2 vector 14 error 0x8005 addr 0x100000",
        "inside 0",
    ]
    assert [int(kind) for kind, _ in machine.server.events] == [2]


def test_reading_does_not_disable(machine: Machine) -> None:
    assert machine.host("tamper", "0", options=("--tamper=disable",))[2:] == [
        "entry: ret 0 function 4 vector 0 error 0 addr 0",
        "inside 0x5ec7e7",
    ]


def _secret_memory() -> bool:
    """Does this kernel offer memfd_secret (447 on x86-64)?"""
    descriptor: int = ctypes.CDLL(None, use_errno=True).syscall(447, 0)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


@pytest.mark.skipif(not _secret_memory(), reason="this kernel offers no secret memory")
def test_debuggers_ways_in(machine: Machine) -> None:
    """Data in secret memory cannot be read from outside, text not be written."""
    assert machine.host("peek") == ["readv EFAULT 0", "mem EIO 0", "text EIO"]


def test_debug_enclave_opens_to_a_debugger(machine: Machine, tmp_path: Path) -> None:
    signature = tmp_path / "debug.sig"
    images.sign_image(machine.mrenclave, signature, machine.signer, debug=True)
    lines = machine.host("peek", signature=signature, env={**os.environ, "ENCLAVE_DEBUG": "1"})
    assert lines[:2] == ["readv read 0x5ec7e7", "mem read 0x5ec7e7"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("level", ["faithful", "sealed"])
def test_ordinary_user_with_little_locked_memory(machine: Machine, level: str) -> None:
    """As nobody with RLIMIT_MEMLOCK of 1 MiB: some extents are ordinary memory, everything works."""
    with tempfile.TemporaryDirectory(prefix="sr-native-") as place:
        os.chmod(place, 0o755)
        image, signature = Path(place) / "e.sgxs", Path(place) / "e.sig"
        shutil.copy(machine.image, image)
        shutil.copy(machine.signature, signature)
        for scenario, last in (("storm-calls", "good 30000 30000 alarms 1"), ("many", "good 3000")):
            lines = machine.host(
                scenario,
                options=("--level", level),
                image=image,
                signature=signature,
                user=65534,
                group=65534,
                extra_groups=[],
                preexec_fn=_limit_locked_memory,
            )
            assert lines == [last]


def _limit_locked_memory() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))


def test_enclaves_come_and_go(machine: Machine) -> None:
    """300 in one process: their backing is freed, the package told, the quota given back."""
    pages = machine.image.read_bytes().count(b"EADD\0")
    with package_server(epc_pages=2 * pages) as server:
        command = [str(images.BUILD / "host"), "again", str(machine.image), str(machine.signature)]
        done = server.run(command)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"good 300\n", b"")
        assert [int(kind) for kind, _ in server.events] == [1] * 301


def test_a_sweep_meets_no_entry(machine: Machine) -> None:
    """Enclaves come and go while a thread enters whatever is at their place: each entry meets one whole, or none."""
    assert machine.host("entered") == ["good 150", "entered 1"]


def test_provisioning_device(machine: Machine) -> None:
    allowed = machine.server.package.fuses.provision_allowed
    assert machine.host("provision") == ["open 1 ioctl 0" if allowed else "open 0 ioctl EINVAL"]


@pytest.mark.parametrize("options", [(), ("--tamper=disable",)])
def test_what_was_measured_is_not_changed_before_the_first_entry(
    machine: Machine, options: tuple[str, ...]
) -> None:
    with (images.BUILD / "enclave.elf").open("rb") as file:
        (symbol,) = ELFFile(file).get_section_by_name(".symtab").get_symbol_by_name("secret")
    (line,) = machine.host("before", hex(symbol["st_value"]), options=options)
    ones = "0x" + "f" * 16
    if options:
        assert line == f"seen {ones} ret 0 function 2 out 0"
    else:
        assert line == f"seen {ones} ret 0 function 4 out 0x5ec7e7"


def test_a_mapping_without_a_right_is_a_plain_page_fault(machine: Machine) -> None:
    """Of the program's making, not the EPCM's: no SGX bit; and with the right back, the access is made."""
    said = machine.host("protect")
    assert said.pop(1).startswith("write: ret 0 function 3 vector 14 error 0x7 addr 0x")
    assert said == ["mprotect 0", "own page 1", "mprotect 0", "resumed: ret 0 function 4", "inside 0x1234"]


def test_mappings_change_by_the_epcm_wherever_the_range_begins(machine: Machine) -> None:
    lines = machine.host("spans", hex(images.THREAD_BASE))
    assert lines == [
        "span EACCES",
        "pkey EINVAL",
        "unaligned EINVAL",
        "mremap EINVAL",
        "ret 0 function 4 out 42",
    ]


def test_a_forked_child_has_enclaves_of_its_own(machine: Machine) -> None:
    """It has no line to the package (ENODEV), and nothing of its parent's is touched."""
    lines = machine.host("child")
    assert lines == ["child: ENODEV", "status 0", "ret 0 function 4 out 42"]


def test_forks_and_last_closes_while_pages_wait_to_be_hashed(machine: Machine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    image, signature = tmp_path / "e.sgxs", tmp_path / "e.sig"
    images.sign_image(images.build_image(image, heap_pages=1000, filled=True), signature, machine.signer)
    lines = machine.host("waiting", image=image, signature=signature)
    assert lines == ["closed 6 loaded 6 children 1", "ret 0 function 4 out 42"]


def test_the_process_ends_with_its_last_thread(machine: Machine) -> None:
    """By exit(2) of the only thread that the program has; the library's own does not keep the process."""
    for _ in range(10):
        machine.host("leave", status=7)
