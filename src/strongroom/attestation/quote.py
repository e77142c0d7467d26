"""Parse and serialise ECDSA quotes, version 3. Parsing proves nothing: ``verify`` does."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

from strongroom.attestation.errors import MalformedQuote
from strongroom.errors import FormatError
from strongroom.isa import dcap
from strongroom.isa.report import ReportBody

MAX_QUOTE_SIZE = 64 * 1024
_HIGHEST_VERSION = 5  # that Intel has defined; beyond it, it is the first two bytes of something else
_ANOTHER = "name a file that `strongroom quote` or a DCAP library wrote"
_WHOLE = "get it again, whole"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]++-----END CERTIFICATE-----")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, what: str) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise MalformedQuote(f"the quote ends within its {what}", _WHOLE)
        self._at += size
        return part

    def left(self) -> int:
        return len(self._data) - self._at


@dataclass(frozen=True)
class Quote:
    """A quote's fields (see ``strongroom.isa.dcap``); ``serialise`` gives back the bytes that were parsed."""

    header: dcap.QuoteHeader
    body: ReportBody
    signature: bytes
    attestation_key: bytes
    qe_report: ReportBody
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_type: int
    certification_data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """Read one quote, whole. Raises MalformedQuote."""
        if len(data) > MAX_QUOTE_SIZE:
            raise MalformedQuote(f"a quote is at most {MAX_QUOTE_SIZE} bytes, and this is more", _ANOTHER)
        reader = _Reader(bytes(data))
        try:
            header = dcap.QuoteHeader.unpack(reader.take(dcap.QuoteHeader.SIZE, "header"))
            if header.version != dcap.QUOTE_VERSION:
                if not 0 < header.version <= _HIGHEST_VERSION:
                    raise MalformedQuote("this is no quote", _ANOTHER)
                raise MalformedQuote(f"quote version {header.version} is not supported", "use version 3")
            if header.attestation_key_type != dcap.ATTESTATION_KEY_ECDSA_P256 or header.tee_type:
                raise MalformedQuote("this is not an ECDSA P-256 quote of an SGX enclave", _ANOTHER)
            body = ReportBody.unpack(reader.take(dcap.REPORT_BODY_SIZE, "REPORT"))
            (size,) = struct.unpack("<I", reader.take(4, "signature size"))
            if size != reader.left():
                raise MalformedQuote(
                    f"the quote names {size} bytes of signature data and has {reader.left()}", _WHOLE
                )
            signature = reader.take(dcap.SIGNATURE_SIZE, "signature")
            key = reader.take(dcap.PUBLIC_KEY_SIZE, "attestation key")
            qe_report = ReportBody.unpack(reader.take(dcap.REPORT_BODY_SIZE, "QE REPORT"))
            qe_signature = reader.take(dcap.SIGNATURE_SIZE, "QE REPORT's signature")
            (auth_size,) = struct.unpack("<H", reader.take(2, "authentication data"))
            auth = reader.take(auth_size, "authentication data")
            kind, data_size = struct.unpack("<HI", reader.take(6, "certification data"))
            certification = reader.take(data_size, "certification data")
        except FormatError as error:
            raise MalformedQuote(f"the quote is malformed ({error})", _WHOLE) from None
        if reader.left():
            raise MalformedQuote(f"{reader.left()} bytes follow the certification data", _WHOLE)
        return cls(header, body, signature, key, qe_report, qe_signature, auth, kind, certification)

    def serialise(self) -> bytes:
        """The quote's bytes."""
        data = (
            self.signature
            + self.attestation_key
            + self.qe_report.pack()
            + self.qe_report_signature
            + struct.pack("<H", len(self.qe_auth_data))
            + self.qe_auth_data
            + struct.pack("<HI", self.certification_type, len(self.certification_data))
            + self.certification_data
        )
        return self.header.pack() + self.body.pack() + struct.pack("<I", len(data)) + data

    def pem_chain(self) -> list[bytes]:
        """The PCK certificate and its issuers as they stand, leaf first. Raises MalformedQuote without any."""
        if self.certification_type != dcap.CertificationDataType.PCK_CHAIN_PEM:
            raise MalformedQuote(
                f"certification data of type {self.certification_type} is not supported",
                "use a PEM chain (type 5)",
            )
        found: list[bytes] = _PEM.findall(self.certification_data)
        if not found:
            raise MalformedQuote("the quote carries no certificate")
        return found

    def facts(self) -> dict[str, Any]:
        """The fields by name, for printing."""
        return {
            "header": self.header.facts(),
            "report": self.body.facts(),
            "attestation_key": self.attestation_key,
            "qe_report": self.qe_report.facts(),
            "qe_auth_data": self.qe_auth_data,
            "certification_type": self.certification_type,
            "certification_size": len(self.certification_data),
        }
