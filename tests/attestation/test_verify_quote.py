"""Verification: each refusal with its reason, and dcap-qvl as the judge both ways."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from datetime import UTC, datetime, timedelta

import dcap_qvl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.attestation import errors
from strongroom.attestation.collateral import Collateral
from strongroom.attestation.errors import CollateralExpired
from strongroom.attestation.policy import (
    AllOf,
    AtLevel,
    FromRun,
    MinSvn,
    MrEnclave,
    NotDebug,
    Product,
    ReportDataIs,
    Signer,
    Strict,
    TcbStatus,
    UnsafeAnything,
)
from strongroom.attestation.quote import Quote
from strongroom.attestation.roots import INTEL, BadRoot, Root
from strongroom.attestation.verify import verify_quote
from strongroom.machine.pki import Authority, raw_point, sign_raw
from support.fuzzing import examples

SAMPLE_TIME = datetime.fromtimestamp(1750330631, UTC)
MRENCLAVE = bytes(range(32))
MRSIGNER = bytes(range(32, 64))


ANYTHING = UnsafeAnything()


def refused(reason, quote, collateral, root, at, policy=ANYTHING):
    with pytest.raises(errors.VerificationError) as caught:
        verify_quote(quote, collateral, root, at, policy)
    assert caught.value.reason == reason, caught.value
    return caught.value


# --- whose root ---


def test_ours_under_our_root(platform):
    policy = AllOf(
        Strict(), MrEnclave(MRENCLAVE), Signer(MRSIGNER), Product(1), MinSvn(3), ReportDataIs(bytes(64))
    )
    verified = verify_quote(platform.quote(), platform.collateral(), platform.root, platform.now, policy)
    assert (verified.kind, verified.level, verified.tcb_status) == ("run", "sealed", "UpToDate")
    assert verified.facts()["software"] is True


def test_ours_under_intels_root_is_refused(platform):
    refused("unnamed-root", platform.quote(), platform.collateral(), INTEL, platform.now)


def test_the_judge_alone_refuses_ours_under_intels_root(platform):
    """Without any check of ours before it."""
    collateral = dcap_qvl.QuoteCollateralV3.from_json(platform.collateral().to_json())
    seconds = int(platform.now.timestamp())
    with pytest.raises(ValueError):
        dcap_qvl.verify(platform.quote(), collateral, seconds)
    report = dcap_qvl.verify_with_root_ca(platform.quote(), collateral, platform.root.der, seconds)
    assert report.status == "UpToDate"


def test_real_one_under_intels_root(real):
    quote, collateral = real
    statuses = frozenset({"ConfigurationAndSWHardeningNeeded"})
    verified = verify_quote(quote, collateral, INTEL, SAMPLE_TIME, Strict(statuses=statuses))
    assert verified.fmspc.hex() == "00a067110000"
    assert verified.advisory_ids == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert (verified.kind, verified.level) == (None, None)
    refused("tcb-status", quote, collateral, INTEL, SAMPLE_TIME, Strict())


def test_real_one_under_our_root_is_refused(real, platform):
    quote, collateral = real
    refused("unnamed-root", quote, collateral, platform.root, SAMPLE_TIME)
    foreign = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json())
    with pytest.raises(ValueError):
        dcap_qvl.verify_with_root_ca(quote, foreign, platform.root.der, 1750330631)


@pytest.mark.parametrize(
    ("days", "reason"),
    [(-60, "collateral-not-yet-valid"), (60, "expired-collateral"), (3000, "expired-collateral")],
)
def test_real_one_out_of_its_dates(real, days, reason):
    quote, collateral = real
    refused(reason, quote, collateral, INTEL, SAMPLE_TIME + timedelta(days=days))


def test_another_installations_root(platform, other_platform):
    refused("unnamed-root", platform.quote(), platform.collateral(), other_platform.root, platform.now)
    refused("collateral-mismatch", platform.quote(), other_platform.collateral(), platform.root, platform.now)


def test_root_from_bytes(platform):
    assert Root.from_certificate(platform.authority.root_pem.encode()) == platform.root
    with pytest.raises(BadRoot):
        Root.from_certificate(b"no certificate")
    chain = Quote.parse(platform.quote()).pem_chain()
    with pytest.raises(BadRoot):
        Root.from_certificate(chain[0])  # the leaf
    with pytest.raises(BadRoot):
        Root.from_certificate(chain[1])  # a CA, but not a root


def test_intels_certificate_is_intels_root(real):
    quote, _ = real
    assert Root.from_certificate(Quote.parse(quote).pem_chain()[-1]) is INTEL


# --- dates ---


@pytest.mark.parametrize(("days", "reason"), [(-2, "collateral-not-yet-valid"), (31, "expired-collateral")])
def test_out_of_dates(platform, days, reason):
    refused(
        reason, platform.quote(), platform.collateral(), platform.root, platform.now + timedelta(days=days)
    )


@pytest.mark.parametrize(
    ("days", "ended", "remedy"),
    [
        (31, "TCB info", "leave --collateral out"),
        (8 * 365, "certificate of the TCB info's issuer", "move `pki` out"),
        (16 * 365, "PCK certificate chain", "move `pki` out"),
    ],
)
def test_what_is_over_and_what_renews_it(platform, days, ended, remedy):
    """A software root has nobody to get newer collateral from, and collateral of later renews no certificate."""
    at = platform.now + timedelta(days=days)
    for issued in (platform.now, at - timedelta(days=1)):
        collateral = platform.collateral(at=issued)
        if days == 31 and issued != platform.now:
            verify_quote(platform.quote(), collateral, platform.root, at, UnsafeAnything())
            continue
        with pytest.raises(CollateralExpired, match=f"the {ended} ended .*{remedy}"):
            verify_quote(platform.quote(), collateral, platform.root, at, UnsafeAnything())


def test_dates_hold_at_their_ends(platform):
    at = platform.now + timedelta(days=30) - timedelta(seconds=1)
    verify_quote(platform.quote(), platform.collateral(), platform.root, at, UnsafeAnything())


def test_the_judge_alone_refuses_after_the_dates(platform):
    collateral = dcap_qvl.QuoteCollateralV3.from_json(platform.collateral().to_json())
    late = int((platform.now + timedelta(days=31)).timestamp())
    with pytest.raises(ValueError):
        dcap_qvl.verify_with_root_ca(platform.quote(), collateral, platform.root.der, late)


def test_a_clock_without_a_zone_is_a_mistake(platform):
    with pytest.raises(ValueError, match="zone"):
        verify_quote(platform.quote(), platform.collateral(), platform.root, datetime.now(), UnsafeAnything())


# --- alterations ---


@settings(max_examples=examples(200))
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(platform, data):
    """Every bit of a quote is under a signature, a hash or the format, but for the PEM chain's line ends."""
    quote = bytearray(platform.quote())
    end = quote.index(b"-----BEGIN")
    at = data.draw(st.integers(0, end - 1))
    quote[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(errors.VerificationError) as caught:
        verify_quote(bytes(quote), platform.collateral(), platform.root, platform.now, UnsafeAnything())
    assert caught.value.reason in ("altered-quote", "malformed-quote")


@settings(max_examples=examples(100))
@given(st.data())
def test_a_changed_certificate_is_refused(platform, data):
    quote = bytearray(platform.quote())
    begin = quote.index(b"-----BEGIN")
    at = data.draw(st.integers(begin, len(quote) - 1))
    letter = data.draw(st.sampled_from(b"ABCDwxyz0189+/"))
    if quote[at] in b"-\n" or quote[at] == letter or bytes(quote[at : at + 2]).startswith(b"="):
        return
    quote[at] = letter
    try:
        verify_quote(bytes(quote), platform.collateral(), platform.root, platform.now, UnsafeAnything())
    except errors.VerificationError:
        return
    # Accepted only where the change is none: the unused bits of base64's last letter, or words around it.
    assert Quote.parse(bytes(quote)).body == Quote.parse(platform.quote()).body


@pytest.mark.parametrize(
    "member", ["mrenclave", "mrsigner", "isv_svn", "isv_prod_id", "attributes", "report_data", "cpu_svn"]
)
def test_each_field_altered(platform, member):
    quote = Quote.parse(platform.quote())
    old = getattr(quote.body, member)
    new = bytes(b ^ 1 for b in old) if isinstance(old, bytes) else old + 4
    forged = dataclasses.replace(quote, body=dataclasses.replace(quote.body, **{member: new})).serialise()
    refused("altered-quote", forged, platform.collateral(), platform.root, platform.now)


def test_hostile_peer_signs_anew_with_a_key_of_its_own(platform):
    """One field changed, the quote signed by a fresh attestation key: the QE REPORT does not certify it."""
    from cryptography.hazmat.primitives.asymmetric import ec

    quote = Quote.parse(platform.quote())
    body = dataclasses.replace(quote.body, isv_svn=99)
    key = ec.generate_private_key(ec.SECP256R1())
    forged = dataclasses.replace(
        quote,
        body=body,
        attestation_key=raw_point(key.public_key()),
        signature=sign_raw(key, quote.header.pack() + body.pack()),
    )
    refused("altered-quote", forged.serialise(), platform.collateral(), platform.root, platform.now)


def test_hostile_peer_certifies_its_key_by_a_pck_key_of_its_own(platform, other_platform):
    """A whole quote of another installation with this one's certificate chain in place of its own."""
    theirs, ours = Quote.parse(other_platform.quote()), Quote.parse(platform.quote())
    forged = dataclasses.replace(theirs, certification_data=ours.certification_data)
    refused("altered-quote", forged.serialise(), platform.collateral(), platform.root, platform.now)


def test_hostile_chain_with_our_root_at_its_end(platform, other_platform):
    """Their leaf and CA, our root: names our root, and does not lead to it."""
    theirs, ours = Quote.parse(other_platform.quote()), Quote.parse(platform.quote())
    chain = b"\n".join([*theirs.pem_chain()[:2], ours.pem_chain()[2]])
    forged = dataclasses.replace(theirs, certification_data=chain)
    error = refused("unnamed-root", forged.serialise(), platform.collateral(), platform.root, platform.now)
    assert "was not issued by" in str(error)


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_altered_collateral(platform, member):
    collateral = platform.collateral()
    value = json.loads(getattr(collateral, member))
    value["tcbEvaluationDataNumber"] = 99
    forged = dataclasses.replace(collateral, **{member: json.dumps(value)})
    refused("bad-collateral", platform.quote(), forged, platform.root, platform.now)


@settings(max_examples=examples(150))
@given(st.data())
def test_hostile_collateral(platform, data):
    """A change to any byte of any member: a typed refusal, or (where it changes nothing that is read) acceptance."""
    collateral = platform.collateral()
    member = data.draw(st.sampled_from([field.name for field in dataclasses.fields(collateral)]))
    value = getattr(collateral, member)
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    # Signatures differ in size from one making to the next, and what is drawn may not depend on that.
    at = data.draw(st.integers(0, 2**20)) % len(raw)
    raw[at] = data.draw(st.integers(0, 127 if isinstance(value, str) else 255))
    changed = raw.decode() if isinstance(value, str) else bytes(raw)
    forged = dataclasses.replace(collateral, **{member: changed})
    try:
        verified = verify_quote(platform.quote(), forged, platform.root, platform.now, Strict())
    except errors.VerificationError:
        return
    assert member.endswith("chain") or changed == value
    assert verified.tcb_status == "UpToDate"


@settings(max_examples=examples(60))
@given(st.binary(max_size=600))
def test_hostile_certification_data(platform, certification):
    quote = dataclasses.replace(Quote.parse(platform.quote()), certification_data=certification)
    with pytest.raises(errors.VerificationError):
        verify_quote(quote.serialise(), platform.collateral(), platform.root, platform.now, ANYTHING)


def test_another_kinds_collateral(platform):
    refused(
        "collateral-mismatch", platform.quote("run"), platform.collateral("exec"), platform.root, platform.now
    )


def test_revoked_pck(platform):
    from cryptography import x509

    quote = platform.quote()
    leaf = x509.load_pem_x509_certificate(Quote.parse(quote).pem_chain()[0])
    facts = platform.authority.collateral("run", platform.now, revoked=(leaf.serial_number,))
    refused("revoked", quote, Collateral.from_json(json.dumps(facts)), platform.root, platform.now)


# --- policy ---


def check(reason, quote, platform, policy, kind="run"):
    return refused(reason, quote, platform.collateral(kind), platform.root, platform.now, policy)


def test_policy_refusals(platform):
    quote = platform.quote()
    check("wrong-enclave", quote, platform, MrEnclave(bytes(32)))
    check("wrong-enclave", quote, platform, Signer(bytes(32)))
    check("wrong-product", quote, platform, Product(2))
    check("old-svn", quote, platform, MinSvn(4))
    check("replayed-quote", quote, platform, ReportDataIs(b"n" * 64))


def test_debug_enclave(platform):
    check("debug-enclave", platform.quote(attributes=0x7), platform, NotDebug())
    check("debug-enclave", platform.quote(attributes=0x7), platform, Strict())


def test_exec_package(platform):
    quote = platform.quote("exec", "sealed")
    check("exec-package", quote, platform, FromRun(), "exec")
    check(
        "exec-package", quote, platform, Strict(levels=frozenset({"sealed", "separated", "faithful"})), "exec"
    )
    verified = verify_quote(quote, platform.collateral("exec"), platform.root, platform.now, UnsafeAnything())
    assert "STRONGROOM-EXEC" in verified.advisory_ids
    assert verified.level == "faithful"


@pytest.mark.parametrize("level", ["separated", "faithful"])
def test_level(platform, level):
    quote = platform.quote("run", level)
    check("level", quote, platform, Strict())
    verified = verify_quote(
        quote, platform.collateral(), platform.root, platform.now, Strict(levels=frozenset({"sealed", level}))
    )
    assert verified.level == level
    assert verified.tcb_status == "ConfigurationNeeded"


def test_policies_that_would_accept_everything_cannot_be_made():
    with pytest.raises(ValueError):
        AllOf()
    with pytest.raises(ValueError):
        MrEnclave()
    with pytest.raises(ValueError):
        Signer(b"short")
    assert AtLevel().accepted == frozenset({"sealed"})
    assert TcbStatus().accepted == frozenset({"UpToDate"})


# --- openssl as a second judge of the certificates ---


def test_openssl_accepts_the_chain_and_the_crls(platform, tmp_path):
    leaf, processor, root = Quote.parse(platform.quote()).pem_chain()
    for name, data in (("leaf", leaf), ("ca", processor), ("root", root)):
        (tmp_path / f"{name}.pem").write_bytes(data + b"\n")
    collateral = platform.collateral()
    crls = b""
    for der in (collateral.root_ca_crl, collateral.pck_crl):
        made = subprocess.run(
            ["openssl", "crl", "-inform", "der"], input=der, capture_output=True, check=True, timeout=20
        )
        crls += made.stdout
    (tmp_path / "crls.pem").write_bytes(crls)
    command = [
        "openssl", "verify", "-x509_strict", "-crl_check_all", "-CRLfile", "crls.pem",
        "-CAfile", "root.pem", "-untrusted", "ca.pem", "leaf.pem",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert result.returncode == 0, result.stderr
    text = subprocess.run(
        ["openssl", "x509", "-in", "leaf.pem", "-noout", "-subject", "-issuer"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20,
    ).stdout  # fmt: skip
    assert text.count("SOFTWARE") == 2
    assert text.count("NO HARDWARE") == 2


def test_authority_is_made_once(tmp_path):
    first = Authority.open(tmp_path)
    assert Authority.open(tmp_path).root_der == first.root_der
    (tmp_path / "pki" / "authority.json").unlink()
    again = Authority.open(tmp_path)
    assert again.root_der != first.root_der
    assert (
        Root.from_file(tmp_path / "pki" / "root.pem").der == again.root_der
    )  # it is the default of `verify`
