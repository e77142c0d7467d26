"""The processor and its vDSO entry, driven by hosts that know only Linux's SGX interface."""

from __future__ import annotations

import hashlib

import images
import pytest
from native_machine import Machine

from strongroom.isa.report import Report

BACKINGS = pytest.mark.parametrize(
    "options", [(), ("--no-secretmem",), ("--no-fsgsbase", "--no-shani"), ("--warm", "512:512")]
)

UD, GP, PF = 6, 13, 14


def test_uapi_loader_is_small() -> None:
    assert len((images.HERE / "loader.c").read_text().splitlines()) <= 200


@BACKINGS
def test_loader_enters(machine: Machine, options: tuple[str, ...]) -> None:
    program = [str(images.BUILD / "loader"), str(machine.image), str(machine.signature), "0", "41"]
    status, out, err = machine.program(*program, options=options)
    assert (status, out, err) == (0, "ret 0 function 4 vector 0 error 0 addr 0 out 0x2a\n", "")


def test_call(machine: Machine) -> None:
    assert machine.host("call") == ["ret 0 function 4 out 42"]


def test_vdso_refuses(machine: Machine) -> None:
    """-EINVAL for other leaves and for reserved fields in use; `run` is then left alone."""
    assert machine.host("invalid") == ["leaf1 -22", "leaf4 -22", "reserved -22 function 77"]


def test_registers(machine: Machine) -> None:
    (line,) = machine.host("registers")
    assert line == ("rsp 1 rbp 1 rdi 0x1111 rsi 0x2222 rdx 0x3333 r8 0x4444 r9 0x5555 r10 0x6666 r11 0x7777")


@pytest.mark.parametrize(
    ("kind", "vector", "error", "address"),
    [
        pytest.param(0, 0, 0, 0, id="divide"),
        pytest.param(1, UD, 0, 0, id="ud2"),
        pytest.param(2, PF, 6, 0x7000, id="unmapped; low bits of the address hidden"),
        pytest.param(3, GP, 0, 0, id="non-canonical"),
        pytest.param(5, PF, 7, 0x10000, id="write to text"),
        pytest.param(6, UD, 0, 0, id="syscall"),
        pytest.param(7, UD, 0, 0, id="int 0x80"),
        pytest.param(8, GP, 0, 0, id="hlt"),
        pytest.param(9, UD, 0, 0, id="in"),
        pytest.param(11, GP, 0, 0, id="EACCEPT on SGX1"),
        pytest.param(12, GP, 0, 0, id="EENTER inside"),
        pytest.param(13, PF, 0x8005, 0x100000, id="TCS as memory"),
        pytest.param(15, GP, 0, 0, id="EMODPE on SGX1"),
    ],
)
def test_fault_is_reported(machine: Machine, kind: int, vector: int, error: int, address: int) -> None:
    (line,) = machine.host("fault", str(kind))
    assert line == f"fault: ret 0 function 3 vector {vector} error {error:#x} addr {address:#x}".replace(
        "0x0", "0"
    )


def test_fault_executing_data(machine: Machine) -> None:
    (line,) = machine.host("fault", "10")
    assert "vector 14 error 0x15" in line


def test_breakpoint_is_a_signal(machine: Machine) -> None:
    """Linux's vDSO never reports #BP and #DB: they stay signals (asm/sgx.h)."""
    assert machine.host("fault", "4", status=-5) == []


@pytest.mark.parametrize(("kind", "length_vector"), [(0, 0), (1, UD), (6, UD)])
def test_second_level_handler_resumes(machine: Machine, kind: int, length_vector: int) -> None:
    """A fault; EENTER with CSSA = 1 mends the SSA frame; ERESUME goes on behind the instruction."""
    lines = machine.host("resume", str(kind))
    assert lines[0] == "second: ret 0 function 4"
    assert f"handler 2 exitinfo {0x80000300 | length_vector:#x}" in lines[1]
    if kind:
        assert "out 0x99" in lines[1]


def test_exinfo(machine: Machine) -> None:
    """With MISCSELECT.EXINFO a page fault's address and code reach the enclave; without, not."""
    lines = machine.host("resume", "2", "exinfo")
    assert "exitinfo 0x8000030e maddr 0x7123 errcd 0x6 " in lines[1]


@pytest.mark.parametrize("scenario", ["storm", "storm-altstack"])
@BACKINGS
def test_registers_survive_signals(machine: Machine, scenario: str, options: tuple[str, ...]) -> None:
    """Thousands of SIGALRM while vector registers are live; the handler sees RIP = AEP, RAX = ERESUME."""
    lines = machine.host(scenario, options=options)
    assert "ret 0 function 4 out 0 alarms 1 inside 1" in lines


def test_calls_under_signals(machine: Machine) -> None:
    """Signals at every instruction of entry and exit, on two threads: no call is lost or done twice."""
    assert machine.host("storm-calls") == ["good 30000 30000 alarms 1"]


def test_handler_enters_the_interrupted_enclave(machine: Machine) -> None:
    assert machine.host("nested") == ["ret 0 function 4 out 0 nested 1 exitinfo 0"]


def test_threads_are_inside_at_once(machine: Machine) -> None:
    assert machine.host("threads") == ["met 4 of 4"]


def test_threads_come_and_go(machine: Machine) -> None:
    assert machine.host("many") == ["good 3000"]


def test_tcs_checks(machine: Machine) -> None:
    assert machine.host("busy") == [
        "busy: ret 0 function 2 vector 13 error 0 addr 0",
        "second: ret 0 function 4 vector 13 error 0 addr 0",
        "idle resume: ret 0 function 3 vector 13 error 0 addr 0",
        "unaligned: ret 0 function 2 vector 13 error 0 addr 0",
        "not a TCS: ret 0 function 2 vector 14 error 0x8005 addr 0x101000",
        "no enclave: ret 0 function 2 vector 14 error 0x4 addr 0x7f0000000000",
    ]


def test_frames_run_out(machine: Machine) -> None:
    """NSSA = 3: three faults without a resume, and the fourth entry is #GP."""
    lines = machine.host("nssa")
    assert [line.split("function ")[1][:11] for line in lines] == [
        "3 vector 6 ",
        "3 vector 14",
        "3 vector 14",
        "2 vector 13",
    ]


def test_raw_enclu(machine: Machine) -> None:
    """A program that executes ENCLU itself gets signals at its own AEP."""
    assert machine.host("raw", "1") == [
        "out 42 signal 0",
        "fault signal 4 rax 3 at AEP 1",
        "bad TCS signal 11",
    ]


def test_report(machine: Machine) -> None:
    lines = machine.host("report")
    report = Report.unpack(bytes.fromhex(lines[1])).body
    assert report.mrenclave == machine.mrenclave
    modulus = machine.signer.modulus.to_bytes(384, "little")
    assert report.mrsigner == hashlib.sha256(modulus).digest()
    assert (report.isv_prod_id, report.isv_svn) == (7, 3)
    assert report.report_data[:23] == b"report data of the test"


def test_seal_key(machine: Machine) -> None:
    """The same key twice; an unknown key name is an error code, the buffer untouched."""
    first, second, bad = (line.split() for line in machine.host("key"))
    assert first == second
    assert first[5] == "0"
    assert int(first[6], 16) != 0
    assert bad[5] == "256"  # SGX_INVALID_KEYNAME


def test_segment_bases(machine: Machine) -> None:
    assert machine.host("bases") == ["fs 1 gs 1 host 1"]
    assert machine.host("bases", options=("--no-fsgsbase",)) == ["fs 1 gs 1 host 1"]


def test_fork(machine: Machine) -> None:
    """A child finds its enclave lost; its parent's goes on."""
    assert machine.host("fork") == [
        "child: ret 0 function 2 vector 14 error 0x4 addr 0x100000",  # nothing is mapped there: MADV_DONTFORK
        "ret 0 function 4 out 42",
    ]


def test_host_signals(machine: Machine) -> None:
    expected = ["action 1", "blocked 1 1", "pending 1", "delivered 1", "reset 1", "ret 0 function 4 out 42"]
    assert machine.host("signals") == expected
    assert machine.host("signals", "1", status=-11) == expected
