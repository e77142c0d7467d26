"""The software certification authority: root, processor CA, PCK certificates, CRLs, TCB info, QE identity.

Formats are Intel's ("Intel SGX PCK Certificate and CRL Profile Specification"; "API for Provisioning Certification
Service", version 4), names are not: every subject says SOFTWARE, NO HARDWARE, and the root differs from one
installation to the next. Whoever reads ``STRONGROOM_HOME/pki/authority.json`` can make a quote say anything.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from strongroom.errors import StrongroomError
from strongroom.isa import dcap
from strongroom.isa.software_tcb import (
    ADVISORY_EXEC,
    ADVISORY_MICROCODE,
    FIRST_MICROCODE,
    FMSPC,
    LEVEL_ADVISORY,
    LEVEL_SVN,
    PCE_ID,
    PCE_SVN,
    QE_ISV_PROD_ID,
    QE_ISV_SVN,
    Kind,
    Level,
)
from strongroom.machine.qe_identity import QE_ATTRIBUTES, QE_ATTRIBUTES_MASK, QE_MISCSELECT_MASK, QE_MRSIGNER
from strongroom.paths import private_directory

CN_ROOT = "Strongroom SOFTWARE Root CA, NO HARDWARE"
CN_PROCESSOR = "Strongroom SOFTWARE PCK Processor CA, NO HARDWARE"
CN_SIGNING = "Strongroom SOFTWARE TCB Signing, NO HARDWARE"
CN_PCK = "Strongroom SOFTWARE PCK Certificate, NO HARDWARE"
ORGANIZATION = "Strongroom (software emulation)"

ROOT_END = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
CA_LIFE = timedelta(days=15 * 365)
LEAF_LIFE = timedelta(days=7 * 365)
COLLATERAL_LIFE = timedelta(days=30)
BACKDATE = timedelta(hours=1)
"""Certificates begin this long before they are made: clocks differ a little."""
TCB_DATE = "2026-01-01T00:00:00Z"
TCB_EVALUATION_NUMBER = 1

AUTHORITY_FILE = "authority.json"
RECOVERY_FILE = "tcb-recovery.json"
PCK_FILE = "pck.json"


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode("ascii"), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")
    return key


def sign_raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as r || s, 64 bytes, big endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """x || y, 64 bytes, big endian."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]


def _certificate(
    subject: str,
    key: ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
    path_length: int | None,
    sgx_extension: bytes | None = None,
) -> x509.Certificate:
    """``path_length`` None makes an end certificate, a number a CA."""
    ca = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                content_commitment=not ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), True)
    )
    if sgx_extension is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(dcap.OID_SGX_EXTENSION), sgx_extension)
        builder = builder.add_extension(extension, False)
    return builder.sign(issuer_key, hashes.SHA256())


# --- the SGX extension, in DER (X.690) ---


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    head = (
        bytes([size])
        if size < 128
        else bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8, "big")
    )
    return bytes([tag]) + head + content


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = bytearray([40 * first + second])
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        content += bytes(reversed(groups))
    return _tlv(0x06, bytes(content))


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _entry(oid: str, value: bytes) -> bytes:
    return _tlv(0x30, _oid(oid) + value)


def sgx_extension(ppid: bytes, components: bytes, pce_svn: int, pce_id: bytes, fmspc: bytes) -> bytes:
    """The DER value of extension 1.2.840.113741.1.13.1; ``components`` are the 16 TCB SVNs, a byte each."""
    tcb = b"".join(
        _entry(f"{dcap.OID_TCB}.{index + 1}", _integer(svn)) for index, svn in enumerate(components)
    )
    tcb += _entry(dcap.OID_PCE_SVN, _integer(pce_svn)) + _entry(dcap.OID_CPU_SVN, _tlv(0x04, components))
    return _tlv(
        0x30,
        _entry(dcap.OID_PPID, _tlv(0x04, ppid))
        + _entry(dcap.OID_TCB, _tlv(0x30, tcb))
        + _entry(dcap.OID_PCE_ID, _tlv(0x04, pce_id))
        + _entry(dcap.OID_FMSPC, _tlv(0x04, fmspc))
        + _entry(dcap.OID_SGX_TYPE, _tlv(0x0A, b"\x00")),  # Standard
    )


def tcb_components(level: Level, microcode: int = FIRST_MICROCODE) -> bytes:
    """The 16 TCB component SVNs of a platform at ``level`` with ``microcode``."""
    return bytes([LEVEL_SVN[level], microcode]) + bytes(dcap.TCB_COMPONENT_COUNT - 2)


def tcb_levels(kind: Kind, microcode: int = FIRST_MICROCODE) -> list[dict[str, Any]]:
    """``tcbLevels`` of the TCB info, best first; microcode below ``microcode`` is out of date."""
    found = _tcb_levels_with(kind, microcode, outdated=False)
    if microcode > FIRST_MICROCODE:
        found += _tcb_levels_with(kind, FIRST_MICROCODE, outdated=True)
    return found


def _tcb_levels_with(kind: Kind, microcode: int, *, outdated: bool) -> list[dict[str, Any]]:
    found = []
    for level in LEVEL_SVN:
        advisories = [] if kind == "run" else [ADVISORY_EXEC]
        named = LEVEL_ADVISORY[level]
        if named:
            advisories.append(named)
        status = "ConfigurationNeeded" if advisories else ""
        if outdated:
            status = "OutOfDate" + status
            advisories.append(ADVISORY_MICROCODE)
        entry: dict[str, Any] = {
            "tcb": {
                "sgxtcbcomponents": [{"svn": svn} for svn in tcb_components(level, microcode)],
                "pcesvn": PCE_SVN,
            },
            "tcbDate": TCB_DATE,
            "tcbStatus": status or "UpToDate",
        }
        if advisories:
            entry["advisoryIDs"] = advisories
        found.append(entry)
    return found


# --- files ---


def _write_once(path: Path, text: str) -> None:
    """Make ``path`` (0600) with ``text``, whole or not at all; leaves a file that is there already as it is."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike rename, refuses to replace: two first uses agree on one
        except FileExistsError:
            pass
    finally:
        os.unlink(temporary)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_private(path: Path) -> dict[str, Any]:
    try:
        facts = path.stat()
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StrongroomError(
            f"{path} cannot be read", "restore it, or move it away to have a new one"
        ) from error
    if facts.st_mode & 0o077:
        raise StrongroomError(f"{path} is open to other users", f"chmod 600 {path}")
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise StrongroomError(f"{path} is damaged", "restore it, or move it away to have a new one")
    return value


def recovered_microcode(folder: Path) -> int:
    """What a rehearsed TCB recovery asks for; FIRST_MICROCODE where there was none. Raises StrongroomError."""
    path = folder / RECOVERY_FILE
    try:
        value = json.loads(path.read_text())["microcode"]
    except FileNotFoundError:
        return FIRST_MICROCODE
    except (OSError, ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, int) or not FIRST_MICROCODE <= value <= 255:
        raise StrongroomError(f"{path} is damaged", "rehearse the recovery again, or remove it")
    return value


def publish_recovery(home: Path, microcode: int) -> None:
    """From now on this installation's TCB info calls older microcode out of date; it may be taken back as well."""
    path = private_directory(home / "pki") / RECOVERY_FILE
    path.unlink(missing_ok=True)
    if microcode > FIRST_MICROCODE:
        _write_once(path, json.dumps({"microcode": microcode}))


@dataclass(frozen=True)
class Authority:
    """The installation's root, its processor CA and its TCB signer, with their keys."""

    root_key: ec.EllipticCurvePrivateKey
    root: x509.Certificate
    processor_key: ec.EllipticCurvePrivateKey
    processor: x509.Certificate
    signing_key: ec.EllipticCurvePrivateKey
    signing: x509.Certificate
    microcode: int = FIRST_MICROCODE
    """What the TCB info asks for: raised by a rehearsed TCB recovery."""

    @classmethod
    def make(cls, now: datetime) -> Authority:
        """A new authority: three fresh P-256 keys and their certificates."""
        begin = (now - BACKDATE).replace(microsecond=0)
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        root_key, processor_key, signing_key = keys
        root = _certificate(CN_ROOT, root_key.public_key(), CN_ROOT, root_key, begin, ROOT_END, 1)
        processor = _certificate(
            CN_PROCESSOR, processor_key.public_key(), CN_ROOT, root_key, begin, begin + CA_LIFE, 0
        )
        signing = _certificate(
            CN_SIGNING, signing_key.public_key(), CN_ROOT, root_key, begin, begin + LEAF_LIFE, None
        )
        return cls(root_key, root, processor_key, processor, signing_key, signing)

    @classmethod
    def open(cls, home: Path, now: datetime | None = None) -> Authority:
        """The authority of the installation at ``home``, made at first use. Raises StrongroomError."""
        folder = private_directory(home / "pki")
        path = folder / AUTHORITY_FILE
        if not path.exists():
            _write_once(path, cls.make(now or datetime.now(UTC)).to_json())
        authority = replace(cls.from_json(path, _read_private(path)), microcode=recovered_microcode(folder))
        public = folder / "root.pem"
        if not public.exists() or public.read_bytes() != _pem(authority.root).encode():  # of one moved away
            public.unlink(missing_ok=True)
            _write_once(public, _pem(authority.root))
        return authority

    def to_json(self) -> str:
        """Keys and certificates in PEM; secret."""
        return json.dumps(
            {
                "root_key": _key_pem(self.root_key),
                "root": _pem(self.root),
                "processor_key": _key_pem(self.processor_key),
                "processor": _pem(self.processor),
                "signing_key": _key_pem(self.signing_key),
                "signing": _pem(self.signing),
            }
        )

    @classmethod
    def from_json(cls, path: Path, facts: dict[str, Any]) -> Authority:
        """Read what ``to_json`` wrote. Raises StrongroomError naming ``path``."""
        try:
            return cls(
                _load_key(facts["root_key"]),
                x509.load_pem_x509_certificate(facts["root"].encode()),
                _load_key(facts["processor_key"]),
                x509.load_pem_x509_certificate(facts["processor"].encode()),
                _load_key(facts["signing_key"]),
                x509.load_pem_x509_certificate(facts["signing"].encode()),
            )
        except (KeyError, ValueError, UnsupportedAlgorithm):
            raise StrongroomError(
                f"{path} is damaged", "restore it, or move it away to have a new root"
            ) from None

    @property
    def root_der(self) -> bytes:
        """The root certificate in DER."""
        return self.root.public_bytes(serialization.Encoding.DER)

    @property
    def root_pem(self) -> str:
        """The root certificate in PEM: what an owner names."""
        return _pem(self.root)

    def pck_chain(
        self,
        key: ec.EllipticCurvePublicKey,
        ppid: bytes,
        kind: Kind,
        level: Level,
        microcode: int = FIRST_MICROCODE,
    ) -> bytes:
        """A fresh PCK certificate for ``key`` with its chain: PEM of leaf, processor CA, root.

        It lasts as long as its issuer: the clock may be wrong just now, and what it says then would outlast that.
        """
        begin, end = self.processor.not_valid_before_utc, self.processor.not_valid_after_utc
        extension = sgx_extension(ppid, tcb_components(level, microcode), PCE_SVN, PCE_ID, FMSPC[kind])
        leaf = _certificate(CN_PCK, key, CN_PROCESSOR, self.processor_key, begin, end, None, extension)
        return (_pem(leaf) + _pem(self.processor) + _pem(self.root)).encode("ascii")

    def crl(self, ca: str, issued: datetime, until: datetime, revoked: tuple[int, ...] = ()) -> bytes:
        """The CRL (DER) of ``root`` or ``processor``; ``revoked`` are serial numbers."""
        issuer, key = (CN_ROOT, self.root_key) if ca == "root" else (CN_PROCESSOR, self.processor_key)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(issued)
            .next_update(until)
            .add_extension(x509.CRLNumber(1), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def collateral(
        self, kind: Kind, at: datetime, life: timedelta = COLLATERAL_LIFE, revoked: tuple[int, ...] = ()
    ) -> dict[str, str]:
        """What a verifier needs beside a quote from a ``kind`` package, issued at ``at`` (aware), in the nine
        members of Intel's ``sgx_ql_qve_collateral_t`` version 3 as JSON tools write them (binary as hex)."""
        issued = at.astimezone(UTC).replace(microsecond=0)
        until = issued + life
        evaluation = TCB_EVALUATION_NUMBER + self.microcode - FIRST_MICROCODE
        issue_date, next_update = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (issued, until))
        tcb_info = _compact(
            {
                "id": "SGX",
                "version": 3,
                "issueDate": issue_date,
                "nextUpdate": next_update,
                "fmspc": FMSPC[kind].hex().upper(),
                "pceId": PCE_ID.hex(),
                "tcbType": 0,
                "tcbEvaluationDataNumber": evaluation,
                "tcbLevels": tcb_levels(kind, self.microcode),
            }
        )
        qe_identity = _compact(
            {
                "id": "QE",
                "version": 2,
                "issueDate": issue_date,
                "nextUpdate": next_update,
                "tcbEvaluationDataNumber": evaluation,
                "miscselect": "00000000",
                "miscselectMask": QE_MISCSELECT_MASK.hex().upper(),
                "attributes": QE_ATTRIBUTES.hex().upper(),
                "attributesMask": QE_ATTRIBUTES_MASK.hex().upper(),
                "mrsigner": QE_MRSIGNER.hex().upper(),
                "isvprodid": QE_ISV_PROD_ID,
                "tcbLevels": [{"tcb": {"isvsvn": QE_ISV_SVN}, "tcbDate": TCB_DATE, "tcbStatus": "UpToDate"}],
            }
        )
        signing_chain = _pem(self.signing) + _pem(self.root)
        return {
            "pck_crl_issuer_chain": _pem(self.processor) + _pem(self.root),
            "root_ca_crl": self.crl("root", issued, until).hex(),
            "pck_crl": self.crl("processor", issued, until, revoked).hex(),
            "tcb_info_issuer_chain": signing_chain,
            "tcb_info": tcb_info,
            "tcb_info_signature": sign_raw(self.signing_key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": signing_chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": sign_raw(self.signing_key, qe_identity.encode()).hex(),
        }


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True)
class ProvisionedKey:
    """A package's PCK key pair and platform identifier (PPID, 16 bytes)."""

    kind: Kind
    ppid: bytes
    key: ec.EllipticCurvePrivateKey


def provision(home: Path, directory: Path, kind: Kind) -> ProvisionedKey:
    """The PCK key of the package in ``directory``, made (``pck.json``, 0600) at manufacture or at first use.

    Raises StrongroomError where the file is damaged or was made for the other kind.
    """
    Authority.open(home)
    path = directory / PCK_FILE
    if not path.exists():
        fresh = {
            "kind": kind,
            "ppid": secrets.token_bytes(16).hex(),
            "key": _key_pem(ec.generate_private_key(ec.SECP256R1())),
        }
        _write_once(path, json.dumps(fresh))
    facts = _read_private(path)
    try:
        made_for = facts["kind"]
        ppid = bytes.fromhex(facts["ppid"])
        key = _load_key(facts["key"])
    except (KeyError, ValueError, UnsupportedAlgorithm):
        raise StrongroomError(f"{path} is damaged", "delete this VM and make it again") from None
    if made_for != kind or len(ppid) != 16:
        raise StrongroomError(f"{path} is not that of a {kind} package", "delete this VM and make it again")
    return ProvisionedKey(kind, ppid, key)


def collateral_json(home: Path, kind: Kind, at: datetime) -> str:
    """Collateral for quotes from this installation's ``kind`` packages, as JSON text."""
    return json.dumps(Authority.open(home).collateral(kind, at), indent=1)
