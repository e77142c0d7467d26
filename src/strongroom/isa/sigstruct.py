"""SIGSTRUCT, the enclave's certificate (SDM vol. 3D, Section 38.14, Table 38-19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from strongroom.isa.structure import Field, Structure, number, octets, reserved

# Byte strings in memory order; the manual prints HEADER as 06000000E10000000000010000000000h.
SIGSTRUCT_HEADER = bytes.fromhex("06000000e10000000000010000000000")
SIGSTRUCT_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
SIGSTRUCT_EXPONENT = 3
VENDOR_INTEL = 0x8086
MODULUS_SIZE = 384
SIGNED_RANGES = ((0, 128), (900, 1028))
"""The bytes under the signature: 0 to 127 and 900 to 1027 (Table 38-19, column "Signed")."""


@dataclass(frozen=True)
class Sigstruct(Structure):
    """SIGSTRUCT. Numbers of 3072 bits are little endian; DATE is 0xYYYYMMDD in decimal digits."""

    NAME: ClassVar[str] = "SIGSTRUCT"
    SIZE: ClassVar[int] = 1808
    FIELDS: ClassVar[tuple[Field, ...]] = (
        octets("header", 0, 16),
        number("vendor", 16, 4),
        number("date", 20, 4),
        octets("header2", 24, 16),
        number("swdefined", 40, 4),
        reserved(44, 84),
        number("modulus", 128, 384),
        number("exponent", 512, 4),
        number("signature", 516, 384),
        number("miscselect", 900, 4),
        number("misc_mask", 904, 4),
        number("cet_attributes", 908, 1),
        number("cet_attributes_mask", 909, 1),
        reserved(910, 2),
        octets("isv_family_id", 912, 16),
        number("attributes", 928, 8),
        number("xfrm", 936, 8),
        number("attributes_mask", 944, 8),
        number("xfrm_mask", 952, 8),
        octets("mrenclave", 960, 32),
        reserved(992, 16),
        octets("isv_ext_prod_id", 1008, 16),
        number("isv_prod_id", 1024, 2),
        number("isv_svn", 1026, 2),
        reserved(1028, 12),
        number("q1", 1040, 384),
        number("q2", 1424, 384),
    )
    header: bytes = SIGSTRUCT_HEADER
    vendor: int = 0
    date: int = 0
    header2: bytes = SIGSTRUCT_HEADER2
    swdefined: int = 0
    modulus: int = 0
    exponent: int = SIGSTRUCT_EXPONENT
    signature: int = 0
    miscselect: int = 0
    misc_mask: int = 0
    cet_attributes: int = 0
    cet_attributes_mask: int = 0
    isv_family_id: bytes = bytes(16)
    attributes: int = 0
    xfrm: int = 0
    attributes_mask: int = 0
    xfrm_mask: int = 0
    mrenclave: bytes = bytes(32)
    isv_ext_prod_id: bytes = bytes(16)
    isv_prod_id: int = 0
    isv_svn: int = 0
    q1: int = 0
    q2: int = 0
