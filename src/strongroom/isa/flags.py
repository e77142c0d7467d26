"""ATTRIBUTES, XFRM, MISCSELECT, SECINFO, TCS and KEYPOLICY flags, page types, key names (SDM vol. 3D, chapter
38)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

PAGE_SIZE = 4096
EEXTEND_SIZE = 256


class Attributes(IntFlag):
    """ATTRIBUTES, bits 63:0 of the 128 (Table 38-3); bits 127:64 are XFRM."""

    INIT = 1 << 0
    DEBUG = 1 << 1
    MODE64BIT = 1 << 2
    PROVISIONKEY = 1 << 4
    EINITTOKEN_KEY = 1 << 5
    CET = 1 << 6
    KSS = 1 << 7
    AEXNOTIFY = 1 << 10


ATTRIBUTES_KNOWN = 0x4F7
"""Every bit that Table 38-3 defines."""


class Xfrm(IntFlag):
    """XFRM: the XCR0 bits in force inside (Section 38.7.2; bits as in volume 1, Section 13.1)."""

    X87 = 1 << 0
    SSE = 1 << 1
    AVX = 1 << 2
    BNDREGS = 1 << 3
    BNDCSR = 1 << 4
    OPMASK = 1 << 5
    ZMM_HI256 = 1 << 6
    HI16_ZMM = 1 << 7
    PKRU = 1 << 9


XFRM_LEGACY = Xfrm.X87 | Xfrm.SSE
"""Must be set in every enclave (ECREATE)."""
XFRM_AVX512 = Xfrm.OPMASK | Xfrm.ZMM_HI256 | Xfrm.HI16_ZMM


class Miscselect(IntFlag):
    """MISCSELECT: what MISC regions an SSA frame holds (Table 38-4)."""

    EXINFO = 1 << 0
    CPINFO = 1 << 1


class PageType(IntEnum):
    """EPCM page types (Table 38-12)."""

    SECS = 0
    TCS = 1
    REG = 2
    VA = 3
    TRIM = 4
    SS_FIRST = 5
    SS_REST = 6


class SecinfoFlags(IntFlag):
    """SECINFO.FLAGS without the page type, which is bits 15:8 (Table 38-11)."""

    R = 1 << 0
    W = 1 << 1
    X = 1 << 2
    PENDING = 1 << 3
    MODIFIED = 1 << 4
    PR = 1 << 5


SECINFO_KNOWN = 0xFF3F
"""SECINFO.FLAGS bits that are not reserved."""


def secinfo_flags(page_type: PageType, permissions: int = 0) -> int:
    """SECINFO.FLAGS of a page type and permissions."""
    return int(permissions) | int(page_type) << 8


def page_type(flags: int) -> int:
    """The page type in SECINFO.FLAGS."""
    return flags >> 8 & 0xFF


class TcsFlags(IntFlag):
    """TCS.FLAGS (Table 38-9)."""

    DBGOPTIN = 1 << 0
    AEXNOTIFY = 1 << 1


class KeyName(IntEnum):
    """KEYREQUEST.KEYNAME (Table 38-27)."""

    EINIT_TOKEN = 0
    PROVISION = 1
    PROVISION_SEAL = 2
    REPORT = 3
    SEAL = 4


class KeyPolicy(IntFlag):
    """KEYREQUEST.KEYPOLICY (Table 38-28); bits 15:6 are reserved."""

    MRENCLAVE = 1 << 0
    MRSIGNER = 1 << 1
    NOISVPRODID = 1 << 2
    CONFIGID = 1 << 3
    ISVFAMILYID = 1 << 4
    ISVEXTPRODID = 1 << 5


KEYPOLICY_KSS = KeyPolicy.NOISVPRODID | KeyPolicy.CONFIGID | KeyPolicy.ISVFAMILYID | KeyPolicy.ISVEXTPRODID
"""Bits that an enclave may ask for only with ATTRIBUTES.KSS (EGETKEY)."""
KEYPOLICY_KNOWN = 0x3F


class ExitType(IntEnum):
    """EXITINFO.EXIT_TYPE (Table 38-16)."""

    HARDWARE = 3
    SOFTWARE = 6


EXITINFO_VALID = 1 << 31
