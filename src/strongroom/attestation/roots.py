"""Which root a verifier believes. Intel's is the default; the software root counts only where it is named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.errors import StrongroomError

INTEL_POINT: Final = bytes.fromhex(
    "040ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525"
    "f567918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
)
"""The public key of "Intel SGX Root CA" (P-256, uncompressed)."""


class BadRoot(StrongroomError):
    """What was named as a root is not a P-256 CA certificate."""


@dataclass(frozen=True)
class Root:
    """A root that the caller named. ``der`` is None for Intel's, which the verifier carries itself."""

    name: str
    point: bytes
    der: bytes | None = None

    @property
    def is_intel(self) -> bool:
        """Whether this is Intel's own root."""
        return self.der is None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key (uncompressed point), hexadecimal."""
        return hashlib.sha256(self.point).hexdigest()

    @classmethod
    def from_certificate(cls, data: bytes, name: str = "") -> Root:
        """A root from a certificate in PEM or DER. Raises BadRoot."""
        try:
            if b"-----BEGIN" in data:
                certificate = x509.load_pem_x509_certificate(data)
            else:
                certificate = x509.load_der_x509_certificate(data)
            point = point_of(certificate)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            certificate.verify_directly_issued_by(certificate)
        except Exception as error:
            raise BadRoot(
                "this is not a self-signed P-256 CA certificate", "name a root certificate in PEM or DER"
            ) from error
        if not constraints.ca:
            raise BadRoot("this certificate is not a CA's", "name a root certificate in PEM or DER")
        if point == INTEL_POINT:
            return INTEL
        der = certificate.public_bytes(serialization.Encoding.DER)
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return cls(name or (str(names[0].value) if names else "unnamed"), point, der)

    @classmethod
    def from_file(cls, path: Path) -> Root:
        """A root from a certificate file. Raises BadRoot."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadRoot(
                f"cannot read the root {path} ({error.strerror})", "name a certificate file"
            ) from error
        return cls.from_certificate(data)


INTEL: Final = Root("Intel SGX Root CA", INTEL_POINT)


def point_of(certificate: x509.Certificate) -> bytes:
    """The certificate's P-256 key as an uncompressed point, 65 bytes. Raises ValueError for another kind of key."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
