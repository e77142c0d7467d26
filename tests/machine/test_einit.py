"""EINIT: each rule of the manual's operation section, broken once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import StrongroomError
from strongroom.image.signer import KeySigner
from strongroom.image.sigstruct import mrsigner, sign
from strongroom.isa.enclave import Secs
from strongroom.isa.flags import Attributes
from strongroom.isa.leaves import SgxError, Vector
from strongroom.isa.sigstruct import Sigstruct
from strongroom.machine.fuses import Fuses
from strongroom.machine.leaf import LeafError, LeafFault
from strongroom.machine.package import Package
from support.enclaves import secs, signer
from support.enclaves import sigstruct as make

FUSES = Fuses.burn("run", sgx2=False, epc_pages=256)
PACKAGE = Package(FUSES)
WITH_KSS = Package(replace(FUSES, kss=True))
M = b"m" * 32
MODE64 = int(Attributes.MODE64BIT)


def code(sigstruct: Sigstruct | bytes, control: Secs, package: Package = PACKAGE, flags: int = 0) -> SgxError:
    image = sigstruct if isinstance(sigstruct, bytes) else sigstruct.pack()
    with pytest.raises(LeafError) as refused:
        package.einit(image, control.pack(), flags)
    return refused.value.code


def test_identity() -> None:
    found = PACKAGE.einit(make(M, product=3, svn=4).pack(), secs(M).pack())
    assert (found.mrenclave, found.isv_prod_id, found.isv_svn) == (M, 3, 4)
    assert found.attributes == Attributes.INIT | Attributes.MODE64BIT
    assert found.mrsigner == mrsigner(make(M))
    assert (found.xfrm, found.miscselect) == (7, 0)


def test_measurement() -> None:
    assert code(make(b"x" * 32), secs(M)) == SgxError.SGX_INVALID_MEASUREMENT


@given(at=st.integers(0, Sigstruct.SIZE - 1), bits=st.integers(1, 255))
def test_any_changed_byte_of_the_sigstruct(at: int, bits: int) -> None:
    image = bytearray(make(M).pack())
    image[at] ^= bits
    assert code(bytes(image), secs(M)) in (SgxError.SGX_INVALID_SIG_STRUCT, SgxError.SGX_INVALID_SIGNATURE)


def test_header_comes_before_signature_and_signature_before_measurement() -> None:
    broken = bytearray(make(b"x" * 32).pack())
    broken[600] ^= 1
    assert code(bytes(broken), secs(M)) == SgxError.SGX_INVALID_SIGNATURE
    broken[0] ^= 1
    assert code(bytes(broken), secs(M)) == SgxError.SGX_INVALID_SIG_STRUCT


@pytest.mark.parametrize("size", [0, 1807, 1809])
def test_size_of_the_sigstruct(size: int) -> None:
    assert code(bytes(size), secs(M)) == SgxError.SGX_INVALID_SIG_STRUCT


def test_q1_and_q2_that_fit_another_signature() -> None:
    good, other = make(M), make(b"o" * 32)
    assert code(replace(good, q1=other.q1, q2=other.q2), secs(M)) == SgxError.SGX_INVALID_SIGNATURE
    assert code(replace(good, q2=good.q2 + 1), secs(M)) == SgxError.SGX_INVALID_SIGNATURE
    assert code(replace(good, q1=good.q1 - 1), secs(M)) == SgxError.SGX_INVALID_SIGNATURE
    assert code(replace(good, modulus=0), secs(M)) == SgxError.SGX_INVALID_SIGNATURE
    assert code(replace(good, signature=0, q1=0, q2=0), secs(M)) == SgxError.SGX_INVALID_SIGNATURE


def test_attributes_and_their_mask() -> None:
    assert code(make(M), secs(M, MODE64 | Attributes.DEBUG)) == SgxError.SGX_INVALID_ATTRIBUTE
    assert code(make(M, debug=True), secs(M)) == SgxError.SGX_INVALID_ATTRIBUTE
    found = PACKAGE.einit(make(M, debug=True).pack(), secs(M, MODE64 | Attributes.DEBUG).pack())
    assert found.attributes & Attributes.DEBUG
    open_mask = sign(replace(make(M), attributes_mask=MODE64), signer())
    assert (
        PACKAGE.einit(open_mask.pack(), secs(M, MODE64 | Attributes.DEBUG).pack()).attributes
        & Attributes.DEBUG
    )


def test_xfrm_and_miscselect_with_their_masks() -> None:
    exact = sign(replace(make(M), xfrm=7, xfrm_mask=(1 << 64) - 1, misc_mask=0xFFFFFFFF), signer())
    PACKAGE.einit(exact.pack(), secs(M).pack())
    assert code(exact, replace(secs(M), xfrm=3)) == SgxError.SGX_INVALID_ATTRIBUTE
    assert code(exact, replace(secs(M), miscselect=1)) == SgxError.SGX_INVALID_ATTRIBUTE
    PACKAGE.einit(make(M).pack(), replace(secs(M), xfrm=0xE7, miscselect=1).pack())


def test_provisioning_only_with_the_drivers_leave() -> None:
    signed, control = make(M, provision_key=True), secs(M, MODE64 | Attributes.PROVISIONKEY)
    assert code(signed, control) == SgxError.SGX_INVALID_ATTRIBUTE
    assert PACKAGE.einit(signed.pack(), control.pack(), 1).attributes & Attributes.PROVISIONKEY
    without = Package(replace(FUSES, provision_allowed=False))
    assert code(signed, control, without, flags=1) == SgxError.SGX_INVALID_ATTRIBUTE
    with pytest.raises(StrongroomError):
        PACKAGE.einit(signed.pack(), control.pack(), 2)


def test_launch_control() -> None:
    """Closed where a fuse names a signer; the launch enclave's attribute is for that signer too."""
    ours = Package(replace(FUSES, launch_hash=mrsigner(make(M))))
    other = make(M, key=KeySigner.generate())
    ours.einit(make(M).pack(), secs(M).pack())
    assert code(other, secs(M), ours) == SgxError.SGX_INVALID_EINITTOKEN
    token = Attributes.MODE64BIT | Attributes.EINITTOKEN_KEY
    launcher = sign(replace(make(M), attributes=int(token)), KeySigner.generate())
    assert code(launcher, secs(M, int(token)), ours) == SgxError.SGX_INVALID_ATTRIBUTE
    PACKAGE.einit(launcher.pack(), secs(M, int(token)).pack())


def test_key_separation_and_sharing() -> None:
    family = sign(replace(make(M), isv_family_id=b"f" * 16), signer())
    assert code(family, secs(M)) == SgxError.SGX_INVALID_SIG_STRUCT
    ext = sign(replace(make(M), isv_ext_prod_id=b"x" * 16), signer())
    assert code(ext, secs(M), WITH_KSS) == SgxError.SGX_INVALID_SIG_STRUCT
    kss = int(Attributes.MODE64BIT | Attributes.KSS)
    both = sign(
        replace(make(M), attributes=kss, isv_family_id=b"f" * 16, isv_ext_prod_id=b"x" * 16), signer()
    )
    control = replace(secs(M, kss), config_id=b"c" * 64, config_svn=2)
    found = WITH_KSS.einit(both.pack(), control.pack())
    assert (found.isv_family_id, found.isv_ext_prod_id) == (b"f" * 16, b"x" * 16)
    assert (found.config_id, found.config_svn) == (b"c" * 64, 2)
    with pytest.raises(LeafFault):  # this processor does not have it
        PACKAGE.einit(both.pack(), control.pack())


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0}, {"size": 0x1000}, {"size": 0x30000}, {"size": 1 << 60}, {"base": 0x1000},
        {"base": 1 << 47}, {"ssa_frame_size": 0}, {"xfrm": 1}, {"xfrm": 7 | 1 << 9}, {"xfrm": 0x27},
        {"xfrm": 0xE3}, {"miscselect": 2}, {"attributes": 0}, {"attributes": MODE64 | 1},
        {"attributes": MODE64 | 8}, {"attributes": MODE64 | 1 << 63}, {"attributes": MODE64 | int(Attributes.CET)},
        {"cet_attributes": 1}, {"cet_leg_bitmap_offset": 4096}, {"config_id": b"c" * 64}, {"config_svn": 1},
    ],
)  # fmt: skip
def test_a_secs_that_ecreate_would_refuse(change: dict[str, object]) -> None:
    with pytest.raises(LeafFault) as fault:
        PACKAGE.einit(make(M).pack(), replace(secs(M), **change).pack())  # type: ignore[arg-type]
    assert fault.value.vector == Vector.GP


@given(st.binary(max_size=100) | st.integers(0, 4095).map(lambda at: bytes(at) + b"\1" + bytes(4095 - at)))
def test_any_secs(image: bytes) -> None:
    with pytest.raises((LeafFault, LeafError)):
        PACKAGE.einit(make(M).pack(), image)
