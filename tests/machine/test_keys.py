"""Keys and reports, against derivations written out by hand from the manual's table with raw AES-CMAC."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from strongroom.isa.flags import Attributes, KeyName, KeyPolicy
from strongroom.isa.leaves import SgxError, Vector
from strongroom.isa.report import Keyrequest
from strongroom.machine.fuses import Fuses
from strongroom.machine.leaf import Identity, LeafError, LeafFault
from strongroom.machine.package import Package

FUSES = Fuses(
    kind="run",
    sgx2=True,
    kss=True,
    epc_pages=256,
    provisioning_root=bytes(range(16)),
    sealing_root=b"S" * 16,
    owner_epoch=b"O" * 16,
    package_id=b"P" * 16,
    cpu_svns=(b"\x01" * 16, b"\x02" * 16),
)
PLAIN = Attributes.INIT | Attributes.MODE64BIT
IDENTITY = Identity(
    attributes=int(PLAIN | Attributes.DEBUG),
    xfrm=0xE7,
    miscselect=1,
    mrenclave=b"e" * 32,
    mrsigner=b"s" * 32,
    isv_prod_id=0x1234,
    isv_svn=5,
)
KSS = replace(
    IDENTITY,
    attributes=IDENTITY.attributes | Attributes.KSS,
    config_id=b"c" * 64,
    config_svn=9,
    isv_family_id=b"f" * 16,
    isv_ext_prod_id=b"x" * 16,
)
PROVISIONER = replace(IDENTITY, attributes=IDENTITY.attributes | Attributes.PROVISIONKEY)
LAUNCHER = replace(IDENTITY, attributes=IDENTITY.attributes | Attributes.EINITTOKEN_KEY)
PACKAGE = Package(FUSES)
REQUEST = Keyrequest(
    key_name=KeyName.SEAL,
    key_policy=int(KeyPolicy.MRENCLAVE),
    isv_svn=4,
    cpu_svn=b"\x01" * 16,
    attributes_mask=0xFFFFFFFFFFFFFFFB,
    xfrm_mask=0x64,
    misc_mask=0xFFFFFFF1,
    key_id=b"k" * 32,
)
# RFC 8017, Section 9.2: EMSA-PKCS1-v1_5 for SHA-256 in 384 bytes, without the hash.
PADDING = b"\0\1" + b"\xff" * (384 - 3 - 51) + b"\0" + bytes.fromhex("3031300d060960864801650304020105000420")


def mac(key: bytes, *parts: bytes) -> bytes:
    state = CMAC(AES(key))
    state.update(b"".join(parts))
    return state.finalize()


def by_hand(
    name: int, policy: int, prod: int, svn: int, config_svn: int, misc: int, misc_mask: int, family: bytes, ext: bytes,
    epoch: bytes, attributes: int, xfrm: int, attributes_mask: int, xfrm_mask: int, mrenclave: bytes, mrsigner: bytes,
    key_id: bytes, fuses: bytes, cpu_svn: bytes, config_id: bytes,
) -> bytes:  # fmt: skip
    """KEYDEPENDENCIES in our processor's order, packed here a second time, under the provisioning root."""
    return mac(
        FUSES.provisioning_root,
        struct.pack("<5H2xII12x", name, policy, prod, svn, config_svn, misc, misc_mask),
        family, ext, epoch,
        struct.pack("<QQQQ", attributes, xfrm, attributes_mask, xfrm_mask),
        mrenclave, mrsigner, key_id, fuses, cpu_svn, PADDING, config_id,
    )  # fmt: skip


ZERO16, ZERO32, ZERO64 = bytes(16), bytes(32), bytes(64)
MASKED = (0x64 & 0xE7, 0xFFFFFFFFFFFFFFFB, 0x64)  # XFRM, and the two masks as they were asked for
TABLE = {
    # name: (identity, request, row of the manual's table "Key Derivation")
    "seal to MRENCLAVE": (
        IDENTITY,
        REQUEST,
        (4, 1, 0x1234, 4, 0, 1, 0x0000000E, ZERO16, ZERO16, b"O" * 16, 0x3, *MASKED, b"e" * 32, ZERO32,
         b"k" * 32, b"S" * 16, b"\x01" * 16, ZERO64),
    ),
    "seal to MRSIGNER": (
        IDENTITY,
        replace(REQUEST, key_policy=2),
        (4, 2, 0x1234, 4, 0, 1, 0x0000000E, ZERO16, ZERO16, b"O" * 16, 0x3, *MASKED, ZERO32, b"s" * 32,
         b"k" * 32, b"S" * 16, b"\x01" * 16, ZERO64),
    ),
    "seal with separation and sharing": (
        KSS,
        replace(REQUEST, key_policy=0x3C, config_svn=8),
        (4, 0x3C, 0, 4, 8, 1, 0x0000000E, b"f" * 16, b"x" * 16, b"O" * 16, 0x83, *MASKED, ZERO32, ZERO32,
         b"k" * 32, b"S" * 16, b"\x01" * 16, b"c" * 64),
    ),
    "provisioning": (
        PROVISIONER,
        replace(REQUEST, key_name=1),
        (1, 0, 0x1234, 4, 0, 1, 0x0000000E, ZERO16, ZERO16, ZERO16, 0x13, *MASKED, ZERO32, b"s" * 32,
         ZERO32, ZERO16, b"\x01" * 16, ZERO64),
    ),
    "provisioning seal": (
        PROVISIONER,
        replace(REQUEST, key_name=2),
        (2, 1, 0x1234, 4, 0, 1, 0x0000000E, ZERO16, ZERO16, ZERO16, 0x13, *MASKED, ZERO32, b"s" * 32,
         ZERO32, b"S" * 16, b"\x01" * 16, ZERO64),
    ),
    "provisioning seal with separation and sharing": (
        replace(KSS, attributes=KSS.attributes | Attributes.PROVISIONKEY),
        replace(REQUEST, key_name=2, key_policy=0x3C, config_svn=8),
        (2, 0x3C, 0, 4, 8, 1, 0x0000000E, b"f" * 16, b"x" * 16, ZERO16, 0x93, *MASKED, ZERO32, b"s" * 32,
         ZERO32, b"S" * 16, b"\x01" * 16, b"c" * 64),
    ),
    "EINIT token": (
        LAUNCHER,
        replace(REQUEST, key_name=0),
        (0, 0, 0x1234, 4, 0, 1, 0, ZERO16, ZERO16, b"O" * 16, 0x23, 0x64, 0, 0, ZERO32, b"s" * 32,
         b"k" * 32, b"S" * 16, b"\x01" * 16, ZERO64),
    ),
    "report": (
        KSS,
        replace(REQUEST, key_name=3),
        (3, 0, 0, 0, 9, 1, 0, ZERO16, ZERO16, b"O" * 16, 0x87, 0xE7, 0, 0, b"e" * 32, ZERO32,
         b"k" * 32, b"S" * 16, b"\x02" * 16, b"c" * 64),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_derivation_by_the_table(name: str) -> None:
    identity, request, row = TABLE[name]
    assert PACKAGE.egetkey(identity, request.pack()) == by_hand(*row)


def key(request: Keyrequest, identity: Identity = IDENTITY, package: Package = PACKAGE) -> bytes:
    return package.egetkey(identity, request.pack())


def test_what_a_sealing_key_depends_on() -> None:
    base = key(REQUEST)
    for change in (
        {"key_policy": 3}, {"isv_svn": 3}, {"cpu_svn": b"\x02" * 16}, {"attributes_mask": 0}, {"xfrm_mask": 0},
        {"misc_mask": 0}, {"key_id": bytes(32)},
    ):  # fmt: skip
        assert key(replace(REQUEST, **change)) != base, change  # type: ignore[arg-type]
    for change in (
        {"mrenclave": bytes(32)}, {"isv_prod_id": 1}, {"attributes": int(PLAIN)}, {"miscselect": 0}, {"xfrm": 3},
    ):  # fmt: skip
        assert key(REQUEST, replace(IDENTITY, **change)) != base, change  # type: ignore[arg-type]
    assert key(REQUEST, replace(IDENTITY, mrsigner=bytes(32))) == base, "not part of a key to MRENCLAVE"
    for change in (
        {"provisioning_root": bytes(16)}, {"sealing_root": bytes(16)}, {"owner_epoch": bytes(16)},
    ):  # fmt: skip
        assert key(REQUEST, package=Package(replace(FUSES, **change))) != base, change  # type: ignore[arg-type]


def test_debug_is_always_in_the_key() -> None:
    """REQUIRED_SEALING_MASK: a debug enclave cannot mask its way to a production enclave's key."""
    request = replace(REQUEST, attributes_mask=0)
    assert key(request) != key(request, replace(IDENTITY, attributes=int(PLAIN)))


def test_microcode_update_keeps_old_keys() -> None:
    package = Package(replace(FUSES, cpu_svns=(b"\x01" * 16,)))
    old = key(REQUEST, package=package)
    newer = replace(REQUEST, cpu_svn=b"\x02" * 16)
    with pytest.raises(LeafError) as refused:
        key(newer, package=package)
    assert refused.value.code == SgxError.SGX_INVALID_CPUSVN
    package.microcode_update()
    assert package.cpu_svn == b"\x02" * 16
    assert key(REQUEST, package=package) == old
    assert key(newer, package=package) != old


@pytest.mark.parametrize(
    ("identity", "request_", "code"),
    [
        (IDENTITY, replace(REQUEST, key_name=5), SgxError.SGX_INVALID_KEYNAME),
        (IDENTITY, replace(REQUEST, key_name=0xFFFF), SgxError.SGX_INVALID_KEYNAME),
        (IDENTITY, replace(REQUEST, key_name=0), SgxError.SGX_INVALID_ATTRIBUTE),
        (IDENTITY, replace(REQUEST, key_name=1), SgxError.SGX_INVALID_ATTRIBUTE),
        (IDENTITY, replace(REQUEST, key_name=2), SgxError.SGX_INVALID_ATTRIBUTE),
        (IDENTITY, replace(REQUEST, isv_svn=6), SgxError.SGX_INVALID_ISVSVN),
        (PROVISIONER, replace(REQUEST, key_name=1, isv_svn=6), SgxError.SGX_INVALID_ISVSVN),
        (IDENTITY, replace(REQUEST, cpu_svn=b"\x02" * 15 + b"\x03"), SgxError.SGX_INVALID_CPUSVN),
        (KSS, replace(REQUEST, config_svn=10), SgxError.SGX_INVALID_ISVSVN),
    ],
)
def test_refusals(identity: Identity, request_: Keyrequest, code: SgxError) -> None:
    with pytest.raises(LeafError) as refused:
        key(request_, identity)
    assert refused.value.code == code


def test_the_report_key_needs_no_svn() -> None:
    key(replace(REQUEST, key_name=KeyName.REPORT, isv_svn=0xFFFF, cpu_svn=b"\xff" * 16))


@pytest.mark.parametrize(
    ("identity", "request_"),
    [
        (IDENTITY, replace(REQUEST, key_policy=0x40)),
        (KSS, replace(REQUEST, key_policy=0x8000)),
        (IDENTITY, replace(REQUEST, key_policy=KeyPolicy.NOISVPRODID)),
        (IDENTITY, replace(REQUEST, key_policy=KeyPolicy.CONFIGID)),
        (IDENTITY, replace(REQUEST, config_svn=1)),
    ],
)
def test_misuse_is_a_general_protection_fault(identity: Identity, request_: Keyrequest) -> None:
    with pytest.raises(LeafFault) as fault:
        key(request_, identity)
    assert fault.value.vector == Vector.GP


@given(at=st.one_of(st.just(7), st.integers(78, 511)), bits=st.integers(1, 255))
def test_reserved_bytes_of_keyrequest(at: int, bits: int) -> None:
    image = bytearray(REQUEST.pack())
    image[at] ^= bits
    with pytest.raises(LeafFault):
        PACKAGE.egetkey(IDENTITY, bytes(image))


@given(st.binary(max_size=600) | st.binary(min_size=512, max_size=512))
def test_any_keyrequest(data: bytes) -> None:
    try:
        assert len(PACKAGE.egetkey(IDENTITY, data)) == 16
    except (LeafError, LeafFault):
        pass


def test_launch_key_only_for_the_launch_signer() -> None:
    request = replace(REQUEST, key_name=KeyName.EINIT_TOKEN)
    closed = Package(replace(FUSES, launch_hash=b"z" * 32))
    with pytest.raises(LeafError):
        key(request, LAUNCHER, closed)
    assert key(request, LAUNCHER, Package(replace(FUSES, launch_hash=b"s" * 32))) == key(request, LAUNCHER)


# --- EREPORT -----------------------------------------------------------------------------------------------------


def test_report_is_verified_by_the_target_alone() -> None:
    target = replace(IDENTITY, mrenclave=b"t" * 32, attributes=int(PLAIN))
    report = PACKAGE.ereport(KSS, PACKAGE.target_info(target).pack(), b"d" * 64)
    body, key_id, code = report[:384], report[384:416], report[416:432]
    request = Keyrequest(key_name=KeyName.REPORT, key_id=key_id)
    assert mac(key(request, target), body) == code
    assert mac(key(request, KSS), body) != code
    other = Package(replace(FUSES, provisioning_root=bytes(16)))
    assert mac(key(request, target, other), body) != code
    # The body by the manual's offsets (table of REPORT).
    assert body[:16] == b"\x02" * 16
    assert struct.unpack_from("<I", body, 16) == (1,)
    assert body[32:48] == b"x" * 16
    assert struct.unpack_from("<QQ", body, 48) == (KSS.attributes, 0xE7)
    assert (body[64:96], body[128:160], body[192:256]) == (b"e" * 32, b"s" * 32, b"c" * 64)
    assert struct.unpack_from("<HHH", body, 256) == (0x1234, 5, 9)
    assert (body[304:320], body[320:384]) == (b"f" * 16, b"d" * 64)


def test_key_id_changes_when_the_package_is_switched_on() -> None:
    target = PACKAGE.target_info(IDENTITY).pack()
    first, second = (Package(FUSES).ereport(IDENTITY, target, bytes(64))[384:416] for _ in range(2))
    assert first != second


@given(at=st.one_of(st.just(49), st.integers(56, 63), st.integers(128, 511)), bits=st.integers(1, 255))
def test_reserved_bytes_of_targetinfo(at: int, bits: int) -> None:
    image = bytearray(512)
    image[at] ^= bits
    with pytest.raises(LeafFault):
        PACKAGE.ereport(IDENTITY, bytes(image), bytes(64))


def test_targetinfo_with_config_id_needs_a_processor_that_knows_it() -> None:
    old = Package(replace(FUSES, kss=False))
    with pytest.raises(LeafFault):
        old.ereport(IDENTITY, PACKAGE.target_info(KSS).pack(), bytes(64))
    for size in (0, 511, 513):
        with pytest.raises(LeafFault):
            PACKAGE.ereport(IDENTITY, bytes(size), bytes(64))
    with pytest.raises(LeafFault):
        PACKAGE.ereport(IDENTITY, bytes(512), bytes(63))
