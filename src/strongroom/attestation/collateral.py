"""What a verifier needs beside a quote, in the JSON form that DCAP tools exchange (binary members as hex)."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from strongroom.attestation.errors import BadCollateral

MAX_COLLATERAL_SIZE = 4 * 1024 * 1024
_BINARY = frozenset({"root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"})
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]++-----END CERTIFICATE-----")
_KEPT_SIZE = 1 << 14
_NEXT = "get the collateral again"
D = TypeVar("D", str, bytes)
A = TypeVarTuple("A")
T = TypeVar("T")
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    CryptographyDeprecationWarning,
    x509.InvalidVersion,
    x509.DuplicateExtension,
)
"""What the X.509 library raises for bytes that it cannot read: they share no class."""
# Encodings that RFC 5280 forbids and the library puts up with for now: refused here, not told of on standard error.
warnings.filterwarnings("error", category=CryptographyDeprecationWarning, module=r"strongroom\.attestation\.")


@dataclass(frozen=True)
class Span:
    """From when to when something holds, and what it is."""

    what: str
    begin: datetime
    end: datetime
    is_certificate: bool = False


@dataclass(frozen=True)
class Collateral:
    """The members of ``sgx_ql_qve_collateral_t``, version 3; CRLs are DER, chains PEM, signatures r || s."""

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    @classmethod
    def from_json(cls, text: str | bytes) -> Collateral:
        """Read collateral. Unknown members are left alone (newer tools add some). Raises BadCollateral."""
        if len(text) > MAX_COLLATERAL_SIZE:
            raise BadCollateral(f"collateral is at most {MAX_COLLATERAL_SIZE} bytes", _NEXT)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise BadCollateral("the collateral is not JSON", _NEXT) from None
        if not isinstance(value, dict):
            raise BadCollateral("the collateral is not a JSON object", _NEXT)
        members: dict[str, Any] = {}
        for field in fields(cls):
            member = value.get(field.name)
            if not isinstance(member, str):
                raise BadCollateral(f"the collateral has no text {field.name!r}", _NEXT)
            if field.name in _BINARY:
                members[field.name] = _from_hex(member, field.name)
            else:
                try:
                    member.encode()
                except UnicodeEncodeError:
                    raise BadCollateral(f"the collateral's {field.name!r} is not text", _NEXT) from None
                members[field.name] = member
        return cls(**members)

    @classmethod
    def load(cls, path: Path) -> Collateral:
        """Read a file. Raises BadCollateral."""
        try:
            if path.stat().st_size > MAX_COLLATERAL_SIZE:
                raise BadCollateral(f"{path} is too large for collateral", _NEXT)
            data = path.read_bytes()
        except OSError as error:
            raise BadCollateral(f"cannot read {path} ({error.strerror})", "name a collateral file") from error
        return cls.from_json(data)

    def to_json(self) -> str:
        """The JSON form."""
        plain = {
            name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(self).items()
        }
        return json.dumps(plain, indent=1)

    def fmspc(self) -> bytes:
        """The platform family that the TCB info is about (6 bytes). Raises BadCollateral."""
        value = _signed_json(self.tcb_info, "TCB info").get("fmspc")
        if not isinstance(value, str) or re.fullmatch("[0-9A-Fa-f]{12}", value) is None:
            raise BadCollateral("the TCB info names no FMSPC", _NEXT)
        return bytes.fromhex(value)

    def spans(self) -> list[Span]:
        """The dates of every part. Raises BadCollateral for a part that cannot be read."""
        found = [
            _span_of_json(self.tcb_info, "TCB info"),
            _span_of_json(self.qe_identity, "QE identity"),
            _span_of_crl(self.root_ca_crl, "root CA's CRL"),
            _span_of_crl(self.pck_crl, "PCK CRL"),
        ]
        for what, chain in (
            ("PCK CRL's issuer", self.pck_crl_issuer_chain),
            ("TCB info's issuer", self.tcb_info_issuer_chain),
            ("QE identity's issuer", self.qe_identity_issuer_chain),
        ):
            found += _spans_of_chain(chain, what)
        return found

    def root_certificates(self) -> list[x509.Certificate]:
        """The last certificate of each chain. Raises BadCollateral."""
        chains = (self.pck_crl_issuer_chain, self.tcb_info_issuer_chain, self.qe_identity_issuer_chain)
        return [certificates(chain, "collateral's issuer")[-1] for chain in chains]


def certificates(chain: str, what: str) -> list[x509.Certificate]:
    """The certificates of a PEM chain, at least one. Raises BadCollateral."""
    try:
        found = list(_read_chain(chain))
    except UNREADABLE:
        raise BadCollateral(f"a certificate of the {what} cannot be read", _NEXT) from None
    if not found:
        raise BadCollateral(f"the {what} chain has no certificate", _NEXT)
    return found


def _kept(size: int) -> Callable[[Callable[[D, *A], T]], Callable[[D, *A], T]]:
    """What a pure function found for its last ``size`` inputs is kept, for short ones: a verification meets the same
    issuers several times, and the next one meets them and the same collateral again."""

    def decorate(read: Callable[[D, *A], T]) -> Callable[[D, *A], T]:
        keep: Any = functools.lru_cache(maxsize=size)(read)

        def call(data: D, *args: *A) -> T:
            found: T = (keep if len(data) <= _KEPT_SIZE else read)(data, *args)
            return found

        call.__doc__ = read.__doc__
        return call

    return decorate


@_kept(64)
def read_certificate(pem: bytes) -> x509.Certificate:
    """The certificate in ``pem``, read whole. Raises one of UNREADABLE."""
    return read_whole(x509.load_pem_x509_certificate(pem))


@_kept(16)
def _read_chain(chain: str) -> tuple[x509.Certificate, ...]:
    return tuple(read_certificate(pem.encode()) for pem in _PEM.findall(chain))


@_kept(16)
def _spans_of_chain(chain: str, what: str) -> tuple[Span, ...]:
    return tuple(span_of(c, f"certificate of the {what}") for c in certificates(chain, what))


def span_of(certificate: x509.Certificate, what: str) -> Span:
    """From when to when a certificate holds."""
    return Span(what, certificate.not_valid_before_utc, certificate.not_valid_after_utc, is_certificate=True)


@_kept(16)
def _span_of_crl(data: bytes, what: str) -> Span:
    try:
        crl = x509.load_der_x509_crl(data)
        end = crl.next_update_utc
        begin = crl.last_update_utc
        _ = crl.issuer
    except UNREADABLE:
        raise BadCollateral(f"the {what} cannot be read", _NEXT) from None
    if end is None:
        raise BadCollateral(f"the {what} names no next update", _NEXT)
    return Span(what, begin, end)


@_kept(16)
def _span_of_json(text: str, what: str) -> Span:
    value = _signed_json(text, what)
    return Span(what, _date(value, "issueDate", what), _date(value, "nextUpdate", what))


def read_whole(certificate: x509.Certificate) -> x509.Certificate:
    """Touch the parts that the library reads only when asked, so that hostile ones fail here, with one of
    UNREADABLE."""
    _ = certificate.subject, certificate.issuer, certificate.serial_number, certificate.public_key()
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate


def _from_hex(text: str, name: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if 2 * len(data) != len(text):  # ``fromhex`` passes over white space
        raise BadCollateral(f"the collateral's {name!r} is not hexadecimal", _NEXT)
    return data


def _signed_json(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadCollateral(f"the {what} is not JSON", _NEXT) from None
    if not isinstance(value, dict):
        raise BadCollateral(f"the {what} is not a JSON object", _NEXT)
    return value


def _date(value: dict[str, Any], member: str, what: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value[member])
    except (KeyError, TypeError, ValueError):
        raise BadCollateral(f"the {what} names no {member}", _NEXT) from None
    if moment.tzinfo is None:
        raise BadCollateral(f"the {what}'s {member} names no time zone", _NEXT)
    return moment.astimezone(UTC)
