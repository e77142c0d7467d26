"""ECDSA quote, version 3 (Intel SGX DCAP, "ECDSA Quote Library API", appendix A.4), and the OIDs of PCK certificates.

A quote is: header (48), ISV REPORT body (384), u32 size of the signature data, and the signature data:
signature (64), attestation key (64), QE REPORT body (384), its signature (64), u16 size + QE authentication data,
u16 certification data type, u32 size + certification data. Signatures are r || s, keys x || y, big endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from strongroom.isa.structure import Field, Structure, number, octets

QUOTE_VERSION: Final = 3
ATTESTATION_KEY_ECDSA_P256: Final = 2
SIGNATURE_SIZE: Final = 64
PUBLIC_KEY_SIZE: Final = 64
REPORT_BODY_SIZE: Final = 384
SIGNED_SIZE: Final = 48 + REPORT_BODY_SIZE
"""Bytes under the attestation key's signature."""
SIGNATURE_DATA_FIXED_SIZE: Final = SIGNATURE_SIZE + PUBLIC_KEY_SIZE + REPORT_BODY_SIZE + SIGNATURE_SIZE

QE_VENDOR_INTEL: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""The UUID that names the format of USER_DATA; verifiers refuse any other."""


class CertificationDataType(IntEnum):
    """How the PCK certificate is named (appendix A.4, table 9)."""

    PPID_CLEAR = 1
    PPID_RSA2048 = 2
    PPID_RSA3072 = 3
    PCK_CERTIFICATE = 4
    PCK_CHAIN_PEM = 5
    QE_REPORT = 6


@dataclass(frozen=True)
class QuoteHeader(Structure):
    """The first 48 bytes of a quote (appendix A.4, table 3). In version 3 bytes 4 to 7 are reserved."""

    NAME: ClassVar[str] = "quote header"
    SIZE: ClassVar[int] = 48
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("version", 0, 2),
        number("attestation_key_type", 2, 2),
        number("tee_type", 4, 4),
        number("qe_svn", 8, 2),
        number("pce_svn", 10, 2),
        octets("qe_vendor_id", 12, 16),
        octets("user_data", 28, 20),
    )
    version: int = QUOTE_VERSION
    attestation_key_type: int = ATTESTATION_KEY_ECDSA_P256
    tee_type: int = 0
    qe_svn: int = 0
    pce_svn: int = 0
    qe_vendor_id: bytes = QE_VENDOR_INTEL
    user_data: bytes = bytes(20)


# The SGX extension of a PCK certificate ("Intel SGX PCK Certificate and CRL Profile Specification", 1.3.5).
OID_SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
OID_PPID: Final = OID_SGX_EXTENSION + ".1"
OID_TCB: Final = OID_SGX_EXTENSION + ".2"
OID_PCE_SVN: Final = OID_TCB + ".17"
OID_CPU_SVN: Final = OID_TCB + ".18"
OID_PCE_ID: Final = OID_SGX_EXTENSION + ".3"
OID_FMSPC: Final = OID_SGX_EXTENSION + ".4"
OID_SGX_TYPE: Final = OID_SGX_EXTENSION + ".5"
TCB_COMPONENT_COUNT: Final = 16
