"""EGETKEY and EREPORT (SDM vol. 3D, chapter 40: their operation sections and the table "Key Derivation").

A key is AES-CMAC under the package's provisioning root over KEYDEPENDENCIES, which holds what the table names
for the key, SEAL_KEY_FUSES among it. The manual leaves the byte order of KEYDEPENDENCIES to the processor;
ours is below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from strongroom.errors import FormatError
from strongroom.isa.flags import KEYPOLICY_KNOWN, KEYPOLICY_KSS, Attributes, KeyName, KeyPolicy
from strongroom.isa.leaves import SgxError, Vector
from strongroom.isa.report import Keyrequest, Report, ReportBody, Targetinfo
from strongroom.isa.structure import Field, Structure, number, octets, reserved
from strongroom.machine.fuses import Fuses
from strongroom.machine.leaf import Identity, LeafError, LeafFault

PKCS1_5_PADDING = b"\x00\x01" + b"\xff" * 330 + bytes.fromhex("003031300d060960864801650304020105000420")
"""HARDCODED_PKCS1_5_PADDING (EGETKEY), 352 bytes, in the order of RFC 8017, Section 9.2. EINIT has made sure
that the padding of the enclave's own signature is the same."""
REQUIRED_SEALING_MASK = int(Attributes.INIT | Attributes.DEBUG)
MASK_32 = 0xFFFFFFFF
BY_POLICY = (KeyName.SEAL, KeyName.PROVISION_SEAL)
"""The keys whose derivation KEYPOLICY shapes (EGETKEY, "Operation")."""


@dataclass(frozen=True)
class KeyDependencies(Structure):
    """TMP_KEYDEPENDENCIES of EGETKEY and EREPORT, in the manual's order of members."""

    NAME: ClassVar[str] = "KEYDEPENDENCIES"
    SIZE: ClassVar[int] = 656
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("key_name", 0, 2),
        number("key_policy", 2, 2),
        number("isv_prod_id", 4, 2),
        number("isv_svn", 6, 2),
        number("config_svn", 8, 2),
        number("cet_attributes", 10, 1),
        number("cet_attributes_mask", 11, 1),
        number("miscselect", 12, 4),
        number("misc_mask", 16, 4),
        reserved(20, 12),
        octets("isv_family_id", 32, 16),
        octets("isv_ext_prod_id", 48, 16),
        octets("owner_epoch", 64, 16),
        number("attributes", 80, 8),
        number("xfrm", 88, 8),
        number("attributes_mask", 96, 8),
        number("xfrm_mask", 104, 8),
        octets("mrenclave", 112, 32),
        octets("mrsigner", 144, 32),
        octets("key_id", 176, 32),
        octets("seal_key_fuses", 208, 16),
        octets("cpu_svn", 224, 16),
        octets("padding", 240, 352),
        octets("config_id", 592, 64),
    )
    key_name: int
    key_policy: int = 0
    isv_prod_id: int = 0
    isv_svn: int = 0
    config_svn: int = 0
    cet_attributes: int = 0
    cet_attributes_mask: int = 0
    miscselect: int = 0
    misc_mask: int = 0
    isv_family_id: bytes = bytes(16)
    isv_ext_prod_id: bytes = bytes(16)
    owner_epoch: bytes = bytes(16)
    attributes: int = 0
    xfrm: int = 0
    attributes_mask: int = 0
    xfrm_mask: int = 0
    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    key_id: bytes = bytes(32)
    seal_key_fuses: bytes = bytes(16)
    cpu_svn: bytes = bytes(16)
    padding: bytes = PKCS1_5_PADDING
    config_id: bytes = bytes(64)


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-128-CMAC (NIST SP 800-38B), 16 bytes."""
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()


def derive(fuses: Fuses, dependencies: KeyDependencies) -> bytes:
    """The key that these dependencies lead to on this package."""
    return cmac(fuses.provisioning_root, dependencies.pack())


def beyond(requested: bytes, current: bytes) -> bool:
    """Whether a CPUSVN asks for a component newer than the package has."""
    return any(asked > has for asked, has in zip(requested, current, strict=True))


def report_key(fuses: Fuses, target: Targetinfo, key_id: bytes) -> bytes:
    """The key that the enclave ``target`` describes gets from EGETKEY(REPORT) with ``key_id``."""
    return derive(
        fuses,
        KeyDependencies(
            key_name=KeyName.REPORT,
            owner_epoch=fuses.owner_epoch,
            attributes=target.attributes,
            xfrm=target.xfrm,
            mrenclave=target.mrenclave,
            key_id=key_id,
            seal_key_fuses=fuses.sealing_root,
            cpu_svn=fuses.cpu_svn,
            miscselect=target.miscselect,
            config_id=target.config_id,
            config_svn=target.config_svn,
            cet_attributes=target.cet_attributes,
        ),
    )


def target_info(identity: Identity) -> Targetinfo:
    """The TARGETINFO that names an enclave."""
    return Targetinfo(
        mrenclave=identity.mrenclave,
        attributes=identity.attributes,
        xfrm=identity.xfrm,
        miscselect=identity.miscselect,
        config_id=identity.config_id,
        config_svn=identity.config_svn,
    )


def ereport(fuses: Fuses, identity: Identity, targetinfo: bytes, report_data: bytes, key_id: bytes) -> bytes:
    """EREPORT: 432 bytes. Raises LeafFault (#GP) for operands that the manual refuses."""
    try:
        target = Targetinfo.unpack(targetinfo)
    except FormatError as error:
        raise LeafFault(Vector.GP, str(error)) from None
    if len(report_data) != 64 or len(key_id) != 32:
        raise LeafFault(Vector.GP, "REPORTDATA is 64 bytes and KEYID 32")
    if not fuses.kss and (target.config_svn or any(target.config_id)):
        raise LeafFault(Vector.GP, "TARGETINFO names a CONFIGID, which this processor does not know")
    body = ReportBody(
        cpu_svn=fuses.cpu_svn,
        miscselect=identity.miscselect,
        isv_ext_prod_id=identity.isv_ext_prod_id,
        attributes=identity.attributes,
        xfrm=identity.xfrm,
        mrenclave=identity.mrenclave,
        mrsigner=identity.mrsigner,
        config_id=identity.config_id,
        isv_prod_id=identity.isv_prod_id,
        isv_svn=identity.isv_svn,
        config_svn=identity.config_svn,
        isv_family_id=identity.isv_family_id,
        report_data=report_data,
    )
    mac = cmac(report_key(fuses, target, key_id), body.pack())
    return Report(body=body, key_id=key_id, mac=mac).pack()


def egetkey(fuses: Fuses, identity: Identity, keyrequest: bytes, launch_hash: bytes | None = None) -> bytes:
    """EGETKEY: 16 bytes. ``launch_hash`` is IA32_SGXLEPUBKEYHASH, None where launch control is open.

    Raises LeafFault (#GP) for reserved bits and LeafError with the manual's codes; the checks come in the
    order of the manual's operation section, which it does not promise itself.
    """
    try:
        request = Keyrequest.unpack(keyrequest)
    except FormatError as error:
        raise LeafFault(Vector.GP, str(error)) from None
    kss = bool(identity.attributes & Attributes.KSS)
    if request.key_policy & ~KEYPOLICY_KNOWN:
        raise LeafFault(Vector.GP, "KEYPOLICY has reserved bits set")
    if not kss and (request.key_policy & KEYPOLICY_KSS or request.config_svn):
        raise LeafFault(
            Vector.GP, "the key asks for key separation and sharing, which the enclave does not have"
        )
    try:
        name = KeyName(request.key_name)
    except ValueError:
        raise LeafError(SgxError.SGX_INVALID_KEYNAME, f"no key has the name {request.key_name}") from None
    if name is KeyName.REPORT:
        return report_key(fuses, target_info(identity), request.key_id)

    if (
        name in (KeyName.PROVISION, KeyName.PROVISION_SEAL)
        and not identity.attributes & Attributes.PROVISIONKEY
    ):
        raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "the enclave has no access to the provisioning key")
    if name is KeyName.EINIT_TOKEN:
        if not identity.attributes & Attributes.EINITTOKEN_KEY:
            raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "the enclave has no access to the launch key")
        if launch_hash is not None and launch_hash != identity.mrsigner:
            raise LeafError(SgxError.SGX_INVALID_ATTRIBUTE, "the launch key is another signer's")
    if beyond(request.cpu_svn, fuses.cpu_svn):
        raise LeafError(SgxError.SGX_INVALID_CPUSVN, "the CPUSVN asked for is beyond the package's")
    if request.isv_svn > identity.isv_svn:
        raise LeafError(SgxError.SGX_INVALID_ISVSVN, "the ISVSVN asked for is beyond the enclave's")
    # CONFIGSVN has no code of its own in the manual, and matters to the keys that KEYPOLICY shapes.
    if name in BY_POLICY and request.config_svn > identity.config_svn:
        raise LeafError(SgxError.SGX_INVALID_ISVSVN, "the CONFIGSVN asked for is beyond the enclave's")
    return derive(fuses, _dependencies(name, fuses, identity, request))


def _dependencies(name: KeyName, fuses: Fuses, identity: Identity, request: Keyrequest) -> KeyDependencies:
    """The table's row of a key other than the report key."""
    common = KeyDependencies(
        key_name=name,
        isv_prod_id=identity.isv_prod_id,
        isv_svn=request.isv_svn,
        cpu_svn=request.cpu_svn,
        attributes=(request.attributes_mask | REQUIRED_SEALING_MASK) & identity.attributes,
        xfrm=request.xfrm_mask & identity.xfrm,
        miscselect=request.misc_mask & identity.miscselect,
    )
    if name is KeyName.EINIT_TOKEN:
        return replace(
            common,
            owner_epoch=fuses.owner_epoch,
            mrsigner=identity.mrsigner,
            key_id=request.key_id,
            seal_key_fuses=fuses.sealing_root,
        )
    common = replace(
        common,
        attributes_mask=request.attributes_mask,
        xfrm_mask=request.xfrm_mask,
        misc_mask=~request.misc_mask & MASK_32,
    )
    if name is KeyName.PROVISION:
        return replace(common, mrsigner=identity.mrsigner)
    policy = KeyPolicy(request.key_policy)
    common = replace(
        common,
        key_policy=request.key_policy,
        seal_key_fuses=fuses.sealing_root,
        isv_prod_id=0 if policy & KeyPolicy.NOISVPRODID else identity.isv_prod_id,
        isv_family_id=identity.isv_family_id if policy & KeyPolicy.ISVFAMILYID else bytes(16),
        isv_ext_prod_id=identity.isv_ext_prod_id if policy & KeyPolicy.ISVEXTPRODID else bytes(16),
        config_id=identity.config_id if policy & KeyPolicy.CONFIGID else bytes(64),
        config_svn=request.config_svn if policy & KeyPolicy.CONFIGID else 0,
    )
    if name is KeyName.PROVISION_SEAL:
        return replace(common, mrsigner=identity.mrsigner)
    return replace(
        common,
        owner_epoch=fuses.owner_epoch,
        key_id=request.key_id,
        mrenclave=identity.mrenclave if policy & KeyPolicy.MRENCLAVE else bytes(32),
        mrsigner=identity.mrsigner if policy & KeyPolicy.MRSIGNER else bytes(32),
    )
