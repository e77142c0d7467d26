"""SIGSTRUCT: make, read, verify (SDM vol. 3D, Section 38.14; Q1 and Q2 as in EINIT, chapter 40)."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.errors import FormatError, StrongroomError
from strongroom.image.signer import Signer
from strongroom.isa.flags import Attributes
from strongroom.isa.sigstruct import (
    MODULUS_SIZE,
    SIGNED_RANGES,
    SIGSTRUCT_EXPONENT,
    SIGSTRUCT_HEADER,
    SIGSTRUCT_HEADER2,
    VENDOR_INTEL,
    Sigstruct,
)

MASK_64 = (1 << 64) - 1
XFRM_MASK = 0x3
"""Holds x87 and SSE; whether AVX and the rest are saved is the loading processor's matter."""
MISC_MASK = 0xFFFFFFFE
"""Leaves EXINFO open."""


class SignatureError(StrongroomError):
    """A SIGSTRUCT's signature, Q1 or Q2 does not belong to its content."""


def parse(data: bytes | bytearray | memoryview) -> Sigstruct:
    """Read 1,808 bytes and check the constants. Raises FormatError. The signature is not looked at: see
    ``verify``."""
    sigstruct = Sigstruct.unpack(data)
    if sigstruct.header != SIGSTRUCT_HEADER or sigstruct.header2 != SIGSTRUCT_HEADER2:
        raise FormatError("not a SIGSTRUCT: its headers are others")
    if sigstruct.vendor not in (0, VENDOR_INTEL):
        raise FormatError(f"SIGSTRUCT: vendor {sigstruct.vendor:#x} is neither 0 nor {VENDOR_INTEL:#x}")
    if sigstruct.exponent != SIGSTRUCT_EXPONENT:
        raise FormatError(f"SIGSTRUCT: exponent {sigstruct.exponent} is not {SIGSTRUCT_EXPONENT}")
    return sigstruct


def signed_bytes(sigstruct: Sigstruct) -> bytes:
    """The 256 bytes under the signature."""
    image = sigstruct.pack()
    return b"".join(image[start:end] for start, end in SIGNED_RANGES)


def mrsigner(sigstruct: Sigstruct) -> bytes:
    """SHA-256 of the modulus, little endian."""
    return hashlib.sha256(sigstruct.modulus.to_bytes(MODULUS_SIZE, "little")).digest()


def quotients(modulus: int, signature: int) -> tuple[int, int]:
    """``Q1 = s^2 // n`` and ``Q2 = (s^3 - Q1*s*n) // n``."""
    q1, rest = divmod(signature * signature, modulus)
    return q1, signature * rest // modulus


def sign(template: Sigstruct, signer: Signer) -> Sigstruct:
    """``template`` with modulus, signature, Q1 and Q2 filled in, verified. Raises SignatureError,
    FormatError."""
    modulus = signer.modulus
    signature = signer.sign(signed_bytes(replace(template, modulus=modulus)))
    if not 0 < signature < modulus:
        raise SignatureError("the signer's answer is not a signature", "try another key")
    q1, q2 = quotients(modulus, signature)
    signed = replace(template, modulus=modulus, signature=signature, q1=q1, q2=q2)
    verify(signed)
    return signed


def template(
    mrenclave: bytes,
    *,
    debug: bool = False,
    product: int = 0,
    svn: int = 0,
    provision_key: bool = False,
    date: datetime.date | None = None,
) -> Sigstruct:
    """An unsigned SIGSTRUCT for a 64-bit enclave: every ATTRIBUTES bit held, XFRM and MISCSELECT as named
    above.

    ``date`` is printed in the manual's decimal digits; None writes 0, for results that depend on the input
    alone.
    """
    attributes = Attributes.MODE64BIT
    if debug:
        attributes |= Attributes.DEBUG
    if provision_key:
        attributes |= Attributes.PROVISIONKEY
    return Sigstruct(
        date=int(date.strftime("%Y%m%d"), 16) if date else 0,
        misc_mask=MISC_MASK,
        attributes=int(attributes),
        attributes_mask=MASK_64,
        xfrm=XFRM_MASK,
        xfrm_mask=XFRM_MASK,
        mrenclave=mrenclave,
        isv_prod_id=product,
        isv_svn=svn,
    )


def verify(sigstruct: Sigstruct) -> None:
    """Check signature, Q1 and Q2 as the processor would. Raises SignatureError."""
    modulus, signature = sigstruct.modulus, sigstruct.signature
    if modulus >> (8 * MODULUS_SIZE - 1) != 1 or not modulus & 1 or not 0 < signature < modulus:
        raise SignatureError(
            "SIGSTRUCT: no RSA-3072 modulus with a signature below it", "sign the enclave again"
        )
    try:
        key = rsa.RSAPublicNumbers(SIGSTRUCT_EXPONENT, modulus).public_key()
        key.verify(
            signature.to_bytes(MODULUS_SIZE, "big"),
            signed_bytes(sigstruct),
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
    except (InvalidSignature, ValueError):
        raise SignatureError(
            "SIGSTRUCT: the signature is not of this content", "sign the enclave again"
        ) from None
    if (sigstruct.q1, sigstruct.q2) != quotients(modulus, signature):
        raise SignatureError("SIGSTRUCT: Q1 and Q2 do not belong to the signature", "sign the enclave again")
