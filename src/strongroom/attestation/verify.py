"""Verify a quote: is it genuine under the root that the caller names, at the time the caller gives, and acceptable?

The judge of "genuine" is the independent ``dcap-qvl`` (signatures, chains, CRLs, QE identity, TCB level). What is done
here besides is to say the reason in our own terms before it is asked, and to check the policy after it. No I/O, and no
clock but the argument.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from strongroom.attestation.collateral import UNREADABLE, Collateral, read_certificate, span_of
from strongroom.attestation.errors import (
    AlteredQuote,
    BadCollateral,
    CollateralExpired,
    CollateralMismatch,
    CollateralNotYetValid,
    DebugEnclave,
    RevokedPlatform,
    UnnamedRoot,
    VerificationError,
)
from strongroom.attestation.judge import judge
from strongroom.attestation.policy import Policy
from strongroom.attestation.quote import Quote
from strongroom.attestation.roots import INTEL, Root, point_of
from strongroom.isa.report import ReportBody
from strongroom.isa.software_tcb import LEVEL_SVN, Kind, Level, kind_of


@dataclass(frozen=True)
class Verified:
    """A genuine quote that the policy accepted."""

    report: ReportBody
    root: Root
    at: datetime
    tcb_status: str
    advisory_ids: tuple[str, ...]
    fmspc: bytes
    kind: Kind | None
    """``run`` or ``exec`` for a software package, None for anything else."""
    level: Level | None
    microcode: int | None = None
    """The microcode's SVN on a software platform (TCB component 2)."""

    def facts(self) -> dict[str, Any]:
        """For printing."""
        return {
            "root": self.root.name,
            "software": not self.root.is_intel,
            "at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tcb_status": self.tcb_status,
            "advisory_ids": list(self.advisory_ids),
            "fmspc": self.fmspc.hex().upper(),
            "kind": self.kind,
            "level": self.level,
            "microcode": self.microcode,
            "mrenclave": self.report.mrenclave.hex(),
            "mrsigner": self.report.mrsigner.hex(),
            "product": self.report.isv_prod_id,
            "svn": self.report.isv_svn,
            "debug": bool(self.report.attributes & 2),
            "report_data": self.report.report_data.hex(),
        }


def verify_quote(quote: bytes, collateral: Collateral, root: Root, at: datetime, policy: Policy) -> Verified:
    """Accept ``quote`` at time ``at`` (aware), or raise a VerificationError with its reason."""
    if at.tzinfo is None:
        raise ValueError("`at` must name its time zone")
    at = at.astimezone(UTC)
    parsed = Quote.parse(quote)
    chain = _chain(parsed)
    _check_roots(chain, collateral, root)
    _check_dates(collateral, chain, root, at)
    claims = _judge(quote, chain, collateral, root, at)
    verified = _verified(parsed, claims, root, at)
    policy.check(verified)
    return verified


def _chain(quote: Quote) -> list[x509.Certificate]:
    pems = quote.pem_chain()
    try:
        return [read_certificate(pem) for pem in pems]
    except UNREADABLE:
        raise AlteredQuote("a certificate in the quote cannot be read", "get the quote again") from None


def _check_roots(chain: list[x509.Certificate], collateral: Collateral, root: Root) -> None:
    """Says plainly whose root it is that was not named; that the chains hold is dcap-qvl's to prove."""
    if _has_point(chain[-1], root):
        if all(one is chain[-1] or _has_point(one, root) for one in collateral.root_certificates()):
            return
        raise CollateralMismatch(
            "the collateral is of another root than the quote", "get the quote's collateral"
        )
    name = "Intel's root" if _has_point(chain[-1], INTEL) else f"the root {_common_name(chain[-1])!r}"
    raise UnnamedRoot(
        f"the quote chains to {name}, and the root named is {root.name!r}",
        "name its root if that is the one you mean to believe",
    )


def _has_point(certificate: x509.Certificate, root: Root) -> bool:
    try:
        return point_of(certificate) == root.point
    except ValueError:
        return False


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value)[:100] if names else "?"


def _check_dates(collateral: Collateral, chain: list[x509.Certificate], root: Root, at: datetime) -> None:
    """Certificates before what they sign: where both are over, new collateral alone would not help."""
    spans = [span_of(certificate, "PCK certificate chain") for certificate in chain] + collateral.spans()
    for span in sorted(spans, key=lambda span: not span.is_certificate):
        if at < span.begin:
            raise CollateralNotYetValid(
                f"the {span.what} begins {span.begin:%Y-%m-%d %H:%M}Z", "check the clock"
            )
        if at >= span.end:
            raise CollateralExpired(
                f"the {span.what} ended {span.end:%Y-%m-%d %H:%M}Z",
                _renewal(root, certificate=span.is_certificate),
            )


def _renewal(root: Root, *, certificate: bool) -> str:
    """What gets what is over anew. A software root's own certificates are made once, with the installation."""
    if root.is_intel:
        return "get newer collateral" + (", or a new quote where the platform's own is over" * certificate)
    if certificate:
        return "where the quote was made, move `pki` out of STRONGROOM_HOME, make a new quote, and name the new root"
    return "it lasts 30 days: where the quote was made, leave --collateral out, or have `strongroom quote` write it"


# What dcap-qvl's messages begin or deal with -> our reason. Anything else stays a plain VerificationError.
_ALTERED = (
    "isv enclave report signature",
    "qe report hash mismatch",
    "qe_report in quote",
    "in quote",
    "from quote",
    "qe auth data",
    "pck certificate",
    "pck cert",
    "qe vendor",
)
_COLLATERAL = (
    "quote_collateral",
    "tcb_info",
    "tcbinfo",
    "tcb info",
    "qe_identity",
    "qe identity",
    "qeidentity",
    "crl",
)


def _judge(
    quote: bytes, chain: list[x509.Certificate], collateral: Collateral, root: Root, at: datetime
) -> dict[str, Any]:
    dcap_qvl = judge()
    seconds = int(at.timestamp())
    try:
        verifier = dcap_qvl.QuoteVerifier(root.der)
        policy = dcap_qvl.QuotePolicy.claims_only(seconds)
        foreign = dcap_qvl.QuoteCollateralV3(
            collateral.pck_crl_issuer_chain,
            collateral.root_ca_crl,
            collateral.pck_crl,
            collateral.tcb_info_issuer_chain,
            collateral.tcb_info,
            collateral.tcb_info_signature,
            collateral.qe_identity_issuer_chain,
            collateral.qe_identity,
            collateral.qe_identity_signature,
        )
        claims = json.loads(verifier.verify_with_policy(quote, foreign, seconds, policy).to_json())
    except ValueError as error:
        raise _ours(str(error), chain, collateral, root) from None
    except BaseException as error:
        # A panic of the foreign library derives from BaseException; hostile bytes must not get past us as one.
        if type(error).__name__ != "PanicException":
            raise
        raise AlteredQuote("the verifier could not make sense of the quote or its collateral") from None
    if not isinstance(claims, dict):
        raise VerificationError("the verifier gave no claims")
    return claims


def _ours(
    message: str, chain: list[x509.Certificate], collateral: Collateral, root: Root
) -> VerificationError:
    """The one place where dcap-qvl's words become our errors."""
    text = " ".join(message.split()).lower()
    short = " ".join(message.split()).removeprefix("Verification failed: ")[:160]
    if "revoked" in text:
        return RevokedPlatform(f"a certificate is revoked ({short})")
    if "fmspc mismatch" in text:
        return CollateralMismatch("the collateral is of another platform family than the quote")
    if "expired" in text:
        return CollateralExpired(
            f"a date has passed ({short})", _renewal(root, certificate="certificate" in text)
        )
    if "future" in text or "notvalidyet" in text.replace(" ", ""):
        return CollateralNotYetValid(f"a date is yet to come ({short})", "check the clock")
    if "debug mode" in text:
        return DebugEnclave("this is a debug enclave, open to any debugger", "build it with debug = false")
    if "certificate chain" in text and "too short" not in text:
        return _chain_error(chain, collateral, short)
    if any(words in text for words in _COLLATERAL):
        return BadCollateral(f"the collateral does not hold ({short})", "get the collateral again")
    if any(words in text for words in _ALTERED):
        return AlteredQuote(f"the quote was altered ({short})", "get it again from the enclave")
    return VerificationError(f"the verifier refused the quote ({short})")


def _chain_error(chain: list[x509.Certificate], collateral: Collateral, short: str) -> VerificationError:
    """The judge does not say which link of which chain failed: look for the reason."""
    for data in (collateral.pck_crl, collateral.root_ca_crl):
        crl = x509.load_der_x509_crl(data)  # it was readable when the dates were checked
        for certificate in chain:
            if certificate.issuer != crl.issuer:
                continue
            if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                return RevokedPlatform(f"the certificate {_common_name(certificate)!r} is revoked")
    for subject, issuer in pairwise(chain):
        try:
            subject.verify_directly_issued_by(issuer)
        except (InvalidSignature, *UNREADABLE):
            return UnnamedRoot(
                f"the certificate {_common_name(subject)!r} was not issued by {_common_name(issuer)!r}: "
                "the chain does not lead to the root named"
            )
    return BadCollateral(f"a chain of the collateral does not hold ({short})", "get the collateral again")


def _verified(quote: Quote, claims: dict[str, Any], root: Root, at: datetime) -> Verified:
    try:
        tcb = claims["tcb"]
        status = str(tcb["status"])
        advisories = tuple(str(name) for name in tcb["advisory_ids"])
        pck = claims["platform"]["pck"]
        fmspc = bytes(pck["fmspc"])
        first_svn, second_svn = (int(svn) for svn in pck["cpu_svn"][:2])
    except (KeyError, IndexError, TypeError, ValueError):
        raise VerificationError("the verifier's claims lack what is needed") from None
    kind = None if root.is_intel else kind_of(fmspc)
    level: Level | None = None
    if kind is not None:
        # An SVN between two named ones counts as the lower.
        level = next((name for name, svn in LEVEL_SVN.items() if first_svn >= svn), "faithful")
    microcode = None if kind is None else second_svn
    return Verified(quote.body, root, at, status, advisories, fmspc, kind, level, microcode)
