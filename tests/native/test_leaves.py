"""ENCLU's leaves against the manual's operation sections (SDM vol. 3D, "SGX Instruction References"): which operands
fault, how, and what RAX and the flags say. The operands are pages of ROOM; a fault leaves a TCS behind, so each is its
own run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import images
import pytest
from elftools.elf.elffile import ELFFile
from native_machine import Machine
from test_edmm import FRESH, MODIFIED, PENDING, PR, REG, ROOM, TCS, TRIM, R, W, X, told, wide

from strongroom.image.sigstruct import sign, template
from strongroom.isa.flags import Attributes
from strongroom.isa.report import Report
from support.package_server import package_server

__all__ = ["wide"]
EREPORT, EGETKEY, EEXIT, EACCEPT, EMODPE, EACCEPTCOPY = 0, 1, 4, 5, 6, 7
PAGE = 0x1000
GP = "fault vector 13 error 0 at 0"
KEPT, CLEARED, ZF = 0x91, 0, 0x40
"""Flags: CF, AF and SF are set before the leaf."""
OUTSIDE = 0x7F0000000000
READY = (
    ("map 0 8 3", "0"),
    (f"accept 0 {FRESH:x}", "0"),
    (f"accept 1 {FRESH:x}", "0"),
    ("restrict 1 1 1", "0 count 0x1000 result 0"),  # page 1: R only
    (f"accept 1 {REG | PR | R:x}", "0"),
)
"""Page 0 can be written, page 1 be read, page 2 comes and is pending, page 9 is not mapped."""
RW, RO, NEW, NONE = 0, PAGE, 2 * PAGE, 9 * PAGE


def page_fault(error: int, at: int) -> str:
    return f"fault vector 14 error {error:#x} at {at:#x}" if at else f"fault vector 14 error {error:#x} at 0"


def leaf(number: int, *operands: int) -> str:
    return f"leaf {number:x} " + " ".join(f"{operand:x}" for operand in operands)


@pytest.mark.parametrize(
    ("operands", "said"),
    [
        ((RW, RW + 0x200, RW + 0x400), f"0 flags {KEPT:#x}"),
        ((RO, RO + 0x200, RW), f"0 flags {KEPT:#x}"),
        ((RW + 0x100, RW + 0x200, RW + 0x400), GP),  # 512
        ((RW, RW + 0x240, RW + 0x400), GP),  # 128
        ((RW, RW + 0x200, RW + 0x500), GP),  # 512
        ((OUTSIDE, RW + 0x200, RW + 0x400), GP),
        ((RW, OUTSIDE, RW + 0x400), GP),
        ((RW, RW + 0x200, OUTSIDE), GP),
        ((NONE, RW + 0x200, RW + 0x400), page_fault(4, NONE)),
        ((RW, NONE, RW + 0x400), page_fault(4, NONE)),
        ((RW, RW + 0x200, NONE), page_fault(6, NONE)),
        ((RW, RW + 0x200, RO), page_fault(0x8007, RO)),
    ],
)
def test_ereport(wide: Machine, operands: tuple[int, ...], said: str) -> None:
    told(wide, *READY, (leaf(EREPORT, *operands), said))


def test_ereport_of_a_pending_page(wide: Machine) -> None:
    told(
        wide,
        *READY,
        ("read 2", page_fault(0x8005, NEW)),
        (leaf(EREPORT, NEW, RW + 0x200, RW + 0x400), page_fault(0x8005, NEW)),
        (leaf(EREPORT, RW, RW + 0x200, NEW), page_fault(0x8007, NEW)),
    )


SEAL, NAME_UNKNOWN = 0x10004, 9
"""KEYNAME, and KEYPOLICY in the next 16 bits."""


@pytest.mark.parametrize(
    ("request_", "operands", "said"),
    [
        ((SEAL, 0, 0), (RW, RW + 0x410), f"0 flags {CLEARED:#x}".replace("0x0", "0")),
        ((NAME_UNKNOWN, 0, 0), (RW, RW + 0x410), f"0x100 flags {ZF:#x}"),
        ((1, 0, 0), (RW, RW + 0x410), f"0x2 flags {ZF:#x}"),  # PROVISION without the attribute
        ((0, 0, 0), (RW, RW + 0x410), f"0x2 flags {ZF:#x}"),  # EINITTOKEN without
        ((SEAL | 4 << 32, 0, 0), (RW, RW + 0x410), f"0x40 flags {ZF:#x}"),  # ISVSVN; the enclave's is 3
        ((SEAL, 2**64 - 1, 0), (RW, RW + 0x410), f"0x20 flags {ZF:#x}"),  # CPUSVN
        ((SEAL | 1 << 56, 0, 0), (RW, RW + 0x410), GP),  # reserved
        ((4 | 0x40 << 16, 0, 0), (RW, RW + 0x410), GP),  # reserved bit of KEYPOLICY
        ((4 | 0x4 << 16, 0, 0), (RW, RW + 0x410), GP),  # NOISVPRODID without KSS
        ((4 | 0x8 << 16, 0, 0), (RW, RW + 0x410), GP),  # CONFIGID
        ((SEAL, 0, 1 << 32), (RW, RW + 0x410), GP),  # CONFIGSVN
        ((SEAL, 0, 1 << 48), (RW, RW + 0x410), GP),  # reserved behind it
        ((SEAL, 0, 0), (RW + 0x100, RW + 0x410), GP),  # 512
        ((SEAL, 0, 0), (RW, RW + 0x408), GP),  # 16
        ((SEAL, 0, 0), (OUTSIDE, RW + 0x410), GP),
        ((SEAL, 0, 0), (RW, OUTSIDE), GP),
        ((SEAL, 0, 0), (NONE, RW + 0x410), page_fault(4, NONE)),
        ((SEAL, 0, 0), (RW, NONE), page_fault(6, NONE)),
        ((NAME_UNKNOWN, 0, 0), (RW, RO), page_fault(0x8007, RO)),  # before the request is looked at
    ],
)
def test_egetkey(wide: Machine, request_: tuple[int, int, int], operands: tuple[int, int], said: str) -> None:
    first, cpu_svn, misc_mask_and_config_svn = request_
    told(
        wide,
        *READY,
        (f"put 0 0 {first:x}", "0"),
        (f"put 0 8 {cpu_svn:x}", "0"),
        (f"put 0 48 {misc_mask_and_config_svn:x}", "0"),
        (leaf(EGETKEY, *operands), said),
    )


@pytest.mark.parametrize(
    ("number", "secinfo", "operands", "said"),
    [
        (EACCEPT, FRESH, (RW + 0x20, NEW), GP),  # 64
        (EACCEPT, FRESH, (RW, NEW + 8), GP),
        (EACCEPT, FRESH, (OUTSIDE, NEW), GP),
        (EACCEPT, FRESH, (RW, OUTSIDE), GP),
        (EACCEPT, FRESH, (NONE, NEW), page_fault(4, NONE)),
        (EACCEPT, FRESH, (RW, NONE), page_fault(4, NONE)),
        (EACCEPT, FRESH, (RW, NEW), f"0 flags {CLEARED}"),
        (EACCEPT, FRESH, (RW, RO), f"0x13 flags {ZF:#x}"),
        (EACCEPT, REG | PENDING | R, (RW, NEW), f"0x13 flags {ZF:#x}"),
        (EACCEPT, REG | R | W, (RW, NEW), GP),  # neither PENDING nor PR
        (EACCEPT, TRIM | PENDING, (RW, NEW), GP),
        (EACCEPT, TCS | MODIFIED | PR, (RW, NEW), GP),
        (EACCEPT, FRESH | 1 << 16, (RW, NEW), GP),
        (EMODPE, REG | R | W, (RW + 0x20, RO), GP),
        (EMODPE, REG | R | W, (RW, RO + 8), GP),
        (EMODPE, REG | R | W, (RW, OUTSIDE), GP),
        (
            EMODPE,
            REG | R | W,
            (RW, RO),
            f"0x6 flags {KEPT:#x}",
        ),  # no answer: RAX and the flags are left alone
        (EMODPE, REG | R | W | 1 << 20, (RW, RO), GP),
        (EMODPE, REG | R | W, (RW, NONE), page_fault(4, NONE)),
        (EMODPE, REG | R | W, (RW, NEW), page_fault(0x8005, NEW)),  # it comes, and is pending
        (EACCEPTCOPY, REG | R | W, (RW, NEW, RW), f"0 flags {CLEARED}"),
        (
            EACCEPTCOPY,
            REG | R | W | PENDING,
            (RW, NEW, RW),
            f"0 flags {CLEARED}",
        ),  # the type alone is looked at
        (EACCEPTCOPY, REG | R | W, (RW, NEW + 8, RW), GP),
        (EACCEPTCOPY, REG | R | W, (RW, NEW, RW + 8), GP),
        (EACCEPTCOPY, REG | R | W, (RW, NEW, OUTSIDE), GP),
        (EACCEPTCOPY, TCS, (RW, NEW, RW), GP),
        (EACCEPTCOPY, REG | W | X, (RW, NEW, RW), GP),
        (EACCEPTCOPY, REG | R | W, (RW, RO, RW), f"0x13 flags {ZF:#x}"),
        (EACCEPTCOPY, REG | R | W, (RW, NONE, RW), page_fault(4, NONE)),
        (EACCEPTCOPY, REG | R | W, (RW, NEW, NONE), page_fault(4, NONE)),
    ],
)
def test_sgx2_leaves(wide: Machine, number: int, secinfo: int, operands: tuple[int, ...], said: str) -> None:
    told(
        wide,
        *READY,
        (f"put 0 0 {secinfo:x}", "0"),
        (leaf(number, *operands, *[0] * (3 - len(operands))), said),
    )


@pytest.mark.parametrize("number", [2, 3, 8, 9, 10, 0xFFFFFFFF])
def test_leaves_that_are_not_there_are_gp(wide: Machine, number: int) -> None:
    told(wide, *READY, (leaf(number, RW, RW, RW), GP))


def test_eexit_to_no_address(wide: Machine) -> None:
    told(wide, *READY, (leaf(EEXIT, 1 << 47, 0, 0), GP), (leaf(EEXIT, 1 << 63, 0, 0), GP))


FLAGS, OSSA, CSSA_NSSA, OENTRY, OFSBASE, OGSBASE = 8, 16, 24, 32, 48, 56


def enter_said(vector: int, error: int) -> str:
    return f"ret 0 function 2 vector {vector} error {f'{error:#x}' if error else 0} out 0"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (FLAGS, 2, enter_said(13, 0)),  # AEXNOTIFY, which this processor does not have
        (FLAGS, 1 << 63, enter_said(13, 0)),
        (OSSA, ROOM + RW + 8, enter_said(13, 0)),
        (OSSA, ROOM + NONE, enter_said(14, 6)),
        (OSSA, ROOM + RO, enter_said(14, 0x8007)),
        (OSSA, ROOM + 3 * PAGE, enter_said(14, 0x8007)),  # the TCS
        (OSSA, 0x7FFFFFFFF000, enter_said(14, 6)),
        (CSSA_NSSA, 0, None),  # EACCEPT: CSSA is not below NSSA
        (OENTRY, 1 << 47, enter_said(13, 0)),
        (OFSBASE, 8, enter_said(13, 0)),
        (OGSBASE, 8, enter_said(13, 0)),
        (OFSBASE, 1 << 47, enter_said(13, 0)),
        (OGSBASE, 1 << 63, enter_said(13, 0)),
        (FLAGS, 0, "ret 0 function 4 vector 0 error 0 out 42"),  # the control
    ],
)
def test_eenter_by_what_the_tcs_says(wide: Machine, field: int, value: int, said: str | None) -> None:
    with (images.BUILD / "enclave.elf").open("rb") as file:
        entry = ELFFile(file)["e_entry"]
    told(
        wide,
        *READY,
        (f"accept 3 {FRESH:x}", "0"),
        (f"tcs 3 {entry:x}", "written"),
        (f"put 3 {field:x} {value:x}", "0"),
        ("types 3 1 1", "0 count 0x1000 result 0"),
        (f"accept 3 {TCS | MODIFIED:x}", "0" if said else GP),
        *([("enter 3", said)] if said else []),
    )


def test_of_an_ssa_frame_what_is_used_has_to_be_there(machine: Machine, tmp_path: Path) -> None:
    """Frames of three pages, the middle one missing: XSAVE area in the first, GPRSGX in the last."""
    image, signature = tmp_path / "e.sgxs", tmp_path / "e.sig"
    images.sign_image(images.build_image(image, nssa=1, frame_pages=3), signature, machine.signer)
    assert machine.host("call", image=image, signature=signature) == ["ret 0 function 4 out 42"]
    lines = machine.host("storm", image=image, signature=signature)
    assert lines == ["ret 0 function 4 out 0 alarms 1 inside 1"]


def test_single_steps_stop_at_the_entry(machine: Machine) -> None:
    """RFLAGS.TF is off inside (the entry is opted out of debugging) and on again behind, whichever way it was set."""
    assert machine.host("step") == [
        "ret 0 function 4 out 42 inside 0 behind 1",
        "ret 0 function 4 out 42 inside 0 behind 1",
        "ret 0 function 4 inside 0",
    ]


KSS_ENV = {**os.environ, "ENCLAVE_KSS": "1", "ENCLAVE_CONFIG": "1"}


@pytest.fixture(scope="module")
def kss_signature(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unsigned = replace(
        template(machine.mrenclave, product=7, svn=3),
        attributes=int(Attributes.MODE64BIT | Attributes.KSS),
        isv_family_id=b"f" * 16,
        isv_ext_prod_id=b"x" * 16,
    )
    path = tmp_path_factory.mktemp("kss") / "e.sig"
    path.write_bytes(sign(unsigned, machine.signer).pack())
    return path


def test_key_separation_and_sharing(machine: Machine, kss_signature: Path) -> None:
    """CONFIGID, CONFIGSVN of SECS, ISVFAMILYID, ISVEXTPRODID of SIGSTRUCT: in the report, and in keys that ask."""
    with package_server(sgx2=True) as server:
        kss = replace(machine, server=server, signature=kss_signature)
        body = Report.unpack(bytes.fromhex(kss.host("report", env=KSS_ENV)[1])).body
        assert (body.config_id, body.config_svn) == (bytes([7]) * 64, 2)
        assert (body.isv_family_id, body.isv_ext_prod_id) == (b"f" * 16, b"x" * 16)
        keys = {}
        for policy in (0x02, 0x06, 0x0A, 0x12, 0x22):  # MRSIGNER with each of the four
            first, second, third = (line.split() for line in kss.host("key", hex(policy), env=KSS_ENV))
            assert (first[5], second[5], third[5]) == ("0", "0", "64")  # CONFIGSVN 3: SGX_INVALID_ISVSVN
            assert (first[6] == second[6]) == (policy != 0x0A), "CONFIGSVN is in a key to CONFIGID alone"
            keys[policy] = first[6]
        assert len(set(keys.values())) == len(keys)


def test_key_separation_and_sharing_where_there_is_none(machine: Machine, kss_signature: Path) -> None:
    only_config = {**os.environ, "ENCLAVE_CONFIG": "1"}
    assert machine.host("call", signature=kss_signature, env=KSS_ENV, status=1) == [
        "create: EIO"
    ]  # SGX1 sizes
    with package_server(sgx2=True) as server:
        kss = replace(machine, server=server)
        assert kss.host("call", env=only_config, status=1) == [
            "create: EIO"
        ]  # CONFIGID without the attribute
        assert kss.host("call", env=KSS_ENV, status=1) == [
            "init: EPERM"
        ]  # the signature holds ATTRIBUTES.KSS at 0
