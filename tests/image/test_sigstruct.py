"""SIGSTRUCT: signed by us, verified by others' code and arithmetic; one changed byte is refused."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.image import sigstruct
from strongroom.image.sigstruct import SignatureError
from strongroom.isa.flags import Attributes
from strongroom.isa.sigstruct import Sigstruct
from support.enclaves import signer
from support.enclaves import sigstruct as make
from support.samples import sample


def test_signature_q1_q2_by_raw_offsets() -> None:
    image = make(b"\x42" * 32, product=7, svn=9, date=datetime.date(2026, 11, 24)).pack()
    n, s, q1, q2 = (int.from_bytes(image[at : at + 384], "little") for at in (128, 516, 1040, 1424))
    key = rsa.RSAPublicNumbers(3, n).public_key()
    key.verify(s.to_bytes(384, "big"), image[:128] + image[900:1028], padding.PKCS1v15(), hashes.SHA256())
    assert q1 == s**2 // n
    assert q2 == (s**3 - q1 * s * n) // n
    assert image[20:24].hex() == "24112620"
    assert image[960:992] == b"\x42" * 32
    assert (image[1024], image[1026]) == (7, 9)


def test_template_bits() -> None:
    plain, debug = make(), make(debug=True)
    assert plain.attributes == Attributes.MODE64BIT
    assert debug.attributes == Attributes.MODE64BIT | Attributes.DEBUG
    assert plain.attributes_mask & Attributes.DEBUG, "a production signature must not fit a debug enclave"
    assert (plain.xfrm, plain.xfrm_mask, plain.misc_mask) == (3, 3, 0xFFFFFFFE)
    assert plain.date == 0
    assert sigstruct.template(bytes(32), provision_key=True).attributes & Attributes.PROVISIONKEY


def test_mrsigner_is_the_hash_of_the_modulus() -> None:
    value = make()
    assert sigstruct.mrsigner(value) == hashlib.sha256(signer().modulus.to_bytes(384, "little")).digest()


@given(at=st.integers(0, Sigstruct.SIZE - 1), bits=st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, bits: int) -> None:
    image = bytearray(make().pack())
    image[at] ^= bits
    with pytest.raises((FormatError, SignatureError)):
        sigstruct.verify(sigstruct.parse(image))


@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(FormatError):
        sigstruct.parse(data)


def test_degenerate_keys_are_refused() -> None:
    good = make()
    for modulus in (0, 1, 3, good.modulus - 1, 1 << 3071):
        with pytest.raises(SignatureError):
            sigstruct.verify(replace(good, modulus=modulus))
    for signature in (0, good.modulus, good.modulus + good.signature):
        if signature < 1 << 3072:
            with pytest.raises(SignatureError):
                sigstruct.verify(replace(good, signature=signature))


@pytest.mark.parametrize(
    "change", [{"vendor": 0x1234}, {"exponent": 65537}, {"header": bytes(16)}, {"header2": bytes(16)}]
)
def test_constants(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        sigstruct.parse(replace(make(), **change).pack())  # type: ignore[arg-type]


def test_real_signature() -> None:
    value = sigstruct.parse(sample("enclaves/test_enclave.sig").read_bytes())
    sigstruct.verify(value)
    assert value.mrenclave.hex() == "784acfd7d5096a8f0fbd3265760bff21b120f62407a9a9e5ba31aa3c8ed198fc"
