"""EINIT's checks in the manual's order (SDM vol. 3D, chapter 40), and ECREATE's, for SECS comes from a guest.

The signature is checked as the processor does it, with Q1 and Q2 instead of divisions, apart from the
signer's code.
"""

from __future__ import annotations

import hashlib

from strongroom.errors import FormatError
from strongroom.isa.enclave import Secs
from strongroom.isa.flags import ATTRIBUTES_KNOWN, PAGE_SIZE, XFRM_AVX512, XFRM_LEGACY, Attributes, Xfrm
from strongroom.isa.leaves import SgxError, Vector
from strongroom.isa.sigstruct import (
    MODULUS_SIZE,
    SIGNED_RANGES,
    SIGSTRUCT_EXPONENT,
    SIGSTRUCT_HEADER,
    SIGSTRUCT_HEADER2,
    VENDOR_INTEL,
    Sigstruct,
)
from strongroom.machine.fuses import Fuses
from strongroom.machine.keys import PKCS1_5_PADDING
from strongroom.machine.leaf import Identity, LeafError, LeafFault

MAX_ENCLAVE_SIZE = 1 << 46


def attributes_allowed(fuses: Fuses) -> int:
    """ATTRIBUTES bits that ECREATE accepts on this package (INIT is EINIT's to set)."""
    allowed = Attributes.DEBUG | Attributes.MODE64BIT | Attributes.PROVISIONKEY | Attributes.EINITTOKEN_KEY
    if fuses.kss:
        allowed |= Attributes.KSS
    return int(allowed)


def check_secs(fuses: Fuses, secs: Secs) -> None:
    """ECREATE's rules. Raises LeafFault (#GP)."""

    def require(holds: bool, reason: str) -> None:
        if not holds:
            raise LeafFault(Vector.GP, f"SECS: {reason}")

    require(
        2 * PAGE_SIZE <= secs.size <= MAX_ENCLAVE_SIZE and not secs.size & (secs.size - 1),
        "SIZE is not a power of two of at least two pages",
    )
    require(not secs.base & (secs.size - 1), "BASEADDR is not aligned to SIZE")
    require(secs.base + secs.size <= 1 << 47, "ELRANGE is not canonical")
    require(
        not secs.attributes & ~attributes_allowed(fuses) & ATTRIBUTES_KNOWN,
        "ATTRIBUTES that are not supported",
    )
    require(not secs.attributes & ~ATTRIBUTES_KNOWN, "ATTRIBUTES has reserved bits set")
    require(bool(secs.attributes & Attributes.MODE64BIT), "only 64-bit enclaves are supported")
    require(
        secs.xfrm & XFRM_LEGACY == XFRM_LEGACY and not secs.xfrm & ~fuses.xfrm_allowed,
        "XFRM is not supported",
    )
    require(
        not secs.xfrm & XFRM_AVX512
        or (secs.xfrm & XFRM_AVX512 == XFRM_AVX512 and bool(secs.xfrm & Xfrm.AVX)),
        "XFRM names AVX-512 in part",
    )
    require(not secs.miscselect & ~fuses.miscselect_allowed, "MISCSELECT is not supported")
    require(not secs.cet_attributes and not secs.cet_leg_bitmap_offset, "CET is not supported")
    require(secs.ssa_frame_size >= 1, "SSAFRAMESIZE is zero")
    require(
        bool(secs.attributes & Attributes.KSS) or not (any(secs.config_id) or secs.config_svn),
        "CONFIGID or CONFIGSVN without ATTRIBUTES.KSS",
    )


def check_signature(sigstruct: Sigstruct, image: bytes) -> None:
    """EINIT's RSA check with Q1 and Q2. Raises LeafError (SGX_INVALID_SIGNATURE).

    With r1 = s^2 - q1*n and r2 = s*r1 - q2*n, both in [0, n), r2 is s^3 mod n: the PKCS #1 v1.5 message.
    """
    n, s = sigstruct.modulus, sigstruct.signature
    good = n >> (8 * MODULUS_SIZE - 1) == 1 and 0 < s < n
    if good:
        r1 = s * s - sigstruct.q1 * n
        r2 = s * r1 - sigstruct.q2 * n
        good = 0 <= r1 < n and 0 <= r2 < n
    if good:
        digest = hashlib.sha256(b"".join(image[start:end] for start, end in SIGNED_RANGES)).digest()
        good = r2.to_bytes(MODULUS_SIZE, "big") == PKCS1_5_PADDING + digest
    if not good:
        raise LeafError(SgxError.SGX_INVALID_SIGNATURE, "the signature does not verify with Q1 and Q2")


def _read_sigstruct(image: bytes) -> Sigstruct:
    try:
        sigstruct = Sigstruct.unpack(image)
    except FormatError as error:
        raise LeafError(SgxError.SGX_INVALID_SIG_STRUCT, str(error)) from None
    if (
        sigstruct.header != SIGSTRUCT_HEADER
        or sigstruct.header2 != SIGSTRUCT_HEADER2
        or sigstruct.vendor not in (0, VENDOR_INTEL)
        or sigstruct.exponent != SIGSTRUCT_EXPONENT
    ):
        raise LeafError(SgxError.SGX_INVALID_SIG_STRUCT, "header, vendor or exponent is wrong")
    return sigstruct


def einit(fuses: Fuses, sigstruct_image: bytes, secs_image: bytes, provision_allowed: bool) -> Identity:
    """EINIT: the enclave's identity. SECS.MRENCLAVE is final; launch control is open unless a fuse says
    otherwise.

    ``provision_allowed``: the driver let the enclave have the PROVISIONKEY attribute
    (SGX_IOC_ENCLAVE_PROVISION). Raises LeafError with the manual's code, LeafFault (#GP) for a SECS that
    ECREATE would not have made.
    """
    try:
        secs = Secs.unpack(secs_image)
    except FormatError as error:
        raise LeafFault(Vector.GP, str(error)) from None
    check_secs(fuses, secs)
    sig = _read_sigstruct(sigstruct_image)
    kss = bool(secs.attributes & Attributes.KSS)
    check_signature(sig, sigstruct_image)
    if not kss and (any(sig.isv_family_id) or any(sig.isv_ext_prod_id)):
        raise LeafError(SgxError.SGX_INVALID_SIG_STRUCT, "ISVFAMILYID or ISVEXTPRODID without ATTRIBUTES.KSS")
    if sig.mrenclave != secs.mrenclave:
        raise LeafError(SgxError.SGX_INVALID_MEASUREMENT, "the enclave is not the one that was signed")
    mrsigner = hashlib.sha256(sig.modulus.to_bytes(MODULUS_SIZE, "little")).digest()
    launch_hash = mrsigner if fuses.launch_hash is None else fuses.launch_hash  # the driver writes the MSRs
    if secs.attributes & Attributes.EINITTOKEN_KEY and mrsigner != launch_hash:
        raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "EINITTOKENKEY is for the launch enclave")
    if secs.attributes & Attributes.PROVISIONKEY and not (provision_allowed and fuses.provision_allowed):
        raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "PROVISIONKEY was not allowed by the driver")
    if (secs.attributes ^ sig.attributes) & sig.attributes_mask or (secs.xfrm ^ sig.xfrm) & sig.xfrm_mask:
        raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "ATTRIBUTES or XFRM are not those that were signed")
    if (secs.miscselect ^ sig.miscselect) & sig.misc_mask:
        raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "MISCSELECT is not the one that was signed")
    if mrsigner != launch_hash:
        raise LeafError(SgxError.SGX_INVALID_EINITTOKEN, "launch control names another signer")
    return Identity(
        attributes=secs.attributes | Attributes.INIT,
        xfrm=secs.xfrm,
        miscselect=secs.miscselect,
        mrenclave=secs.mrenclave,
        mrsigner=mrsigner,
        isv_prod_id=sig.isv_prod_id,
        isv_svn=sig.isv_svn,
        config_id=secs.config_id,
        config_svn=secs.config_svn,
        isv_family_id=sig.isv_family_id,
        isv_ext_prod_id=sig.isv_ext_prod_id,
    )
