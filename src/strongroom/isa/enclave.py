"""SECS, TCS, SECINFO, PAGEINFO and the GPR, EXITINFO and EXINFO areas of an SSA frame (SDM vol. 3D, chapter
38)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from strongroom.isa.structure import Field, Structure, number, octets, reserved


@dataclass(frozen=True)
class Secs(Structure):
    """SGX Enclave Control Structure (Table 38-2), one page. SIZE and BASEADDR are bytes, SSAFRAMESIZE
    pages."""

    NAME: ClassVar[str] = "SECS"
    SIZE: ClassVar[int] = 4096
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("size", 0, 8),
        number("base", 8, 8),
        number("ssa_frame_size", 16, 4),
        number("miscselect", 20, 4),
        number("cet_leg_bitmap_offset", 24, 8),
        number("cet_attributes", 32, 1),
        reserved(33, 15),
        number("attributes", 48, 8),
        number("xfrm", 56, 8),
        octets("mrenclave", 64, 32),
        reserved(96, 32),
        octets("mrsigner", 128, 32),
        reserved(160, 32),
        octets("config_id", 192, 64),
        number("isv_prod_id", 256, 2),
        number("isv_svn", 258, 2),
        number("config_svn", 260, 2),
        reserved(262, 3834),
    )
    size: int = 0
    base: int = 0
    ssa_frame_size: int = 1
    miscselect: int = 0
    cet_leg_bitmap_offset: int = 0
    cet_attributes: int = 0
    attributes: int = 0
    xfrm: int = 0
    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    config_id: bytes = bytes(64)
    isv_prod_id: int = 0
    isv_svn: int = 0
    config_svn: int = 0


@dataclass(frozen=True)
class Tcs(Structure):
    """Thread Control Structure (Table 38-8), one page. OSSA, OENTRY, OFSBASE, OGSBASE are offsets from the
    base."""

    NAME: ClassVar[str] = "TCS"
    SIZE: ClassVar[int] = 4096
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("state", 0, 8),
        number("flags", 8, 8),
        number("ssa_offset", 16, 8),
        number("ssa_index", 24, 4),
        number("nr_ssa_frames", 28, 4),
        number("entry_offset", 32, 8),
        number("exit_addr", 40, 8),
        number("fs_offset", 48, 8),
        number("gs_offset", 56, 8),
        number("fs_limit", 64, 4),
        number("gs_limit", 68, 4),
        number("cet_ssa_offset", 72, 8),
        number("previous_ssp", 80, 8),
        reserved(88, 4008),
    )
    state: int = 0
    flags: int = 0
    ssa_offset: int = 0
    ssa_index: int = 0
    nr_ssa_frames: int = 0
    entry_offset: int = 0
    exit_addr: int = 0
    fs_offset: int = 0
    gs_offset: int = 0
    fs_limit: int = 0
    gs_limit: int = 0
    cet_ssa_offset: int = 0
    previous_ssp: int = 0


@dataclass(frozen=True)
class Secinfo(Structure):
    """Security information of an EPC page (Table 38-10)."""

    NAME: ClassVar[str] = "SECINFO"
    SIZE: ClassVar[int] = 64
    FIELDS: ClassVar[tuple[Field, ...]] = (number("flags", 0, 8), reserved(8, 56))
    flags: int = 0


@dataclass(frozen=True)
class Pageinfo(Structure):
    """Operand of ECREATE and EADD (Table 38-20): four linear addresses."""

    NAME: ClassVar[str] = "PAGEINFO"
    SIZE: ClassVar[int] = 32
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("addr", 0, 8),
        number("contents", 8, 8),
        number("metadata", 16, 8),
        number("secs", 24, 8),
    )
    addr: int = 0
    contents: int = 0
    metadata: int = 0
    secs: int = 0


GPRS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


@dataclass(frozen=True)
class Gprsgx(Structure):
    """The general registers at the top of an SSA frame (Table 38-15)."""

    NAME: ClassVar[str] = "GPRSGX"
    SIZE: ClassVar[int] = 184
    FIELDS: ClassVar[tuple[Field, ...]] = (
        *(number(name, 8 * index, 8) for index, name in enumerate(GPRS)),
        number("rflags", 128, 8),
        number("rip", 136, 8),
        number("ursp", 144, 8),
        number("urbp", 152, 8),
        number("exitinfo", 160, 4),
        reserved(164, 3),
        number("aexnotify", 167, 1),
        number("fsbase", 168, 8),
        number("gsbase", 176, 8),
    )
    rax: int = 0
    rcx: int = 0
    rdx: int = 0
    rbx: int = 0
    rsp: int = 0
    rbp: int = 0
    rsi: int = 0
    rdi: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rflags: int = 0
    rip: int = 0
    ursp: int = 0
    urbp: int = 0
    exitinfo: int = 0
    aexnotify: int = 0
    fsbase: int = 0
    gsbase: int = 0


@dataclass(frozen=True)
class Exinfo(Structure):
    """What #PF and #GP leave in the MISC region (Table 38-18)."""

    NAME: ClassVar[str] = "EXINFO"
    SIZE: ClassVar[int] = 16
    FIELDS: ClassVar[tuple[Field, ...]] = (number("maddr", 0, 8), number("errcd", 8, 4), reserved(12, 4))
    maddr: int = 0
    errcd: int = 0
