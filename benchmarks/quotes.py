"""Quotes: what making one costs, and what verifying one costs beside the independent verifier alone."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import dcap_qvl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.figure import Figure, Scale, Side, interleave
from strongroom.attestation.collateral import Collateral
from strongroom.attestation.policy import AllOf, MrEnclave, Strict
from strongroom.attestation.roots import Root
from strongroom.attestation.verify import verify_quote
from strongroom.machine.leaf import Identity
from strongroom.machine.package import Package
from strongroom.machine.pki import Authority
from strongroom.machine.quoting import QuotingEnclave

_IDENTITY = Identity(
    attributes=0x5, xfrm=0x3, miscselect=0, mrenclave=b"e" * 32, mrsigner=b"s" * 32, isv_prod_id=1, isv_svn=1
)


def measure(folder: Path, scale: Scale) -> list[Figure]:
    now = datetime.now(UTC).replace(microsecond=0)
    package = Package.manufacture(folder / "package", "run", sgx2=False, epc_pages=1024)
    quoting = QuotingEnclave(package, folder, "sealed")
    report = package.ereport(_IDENTITY, quoting.target_info(), bytes(64))
    key, algorithm = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
    times = max(1, scale.rounds)

    def quoted() -> float:
        begin = time.perf_counter()
        for _ in range(times):
            quoting.quote(report)
        return (time.perf_counter() - begin) / times * 1e3

    def signed() -> float:
        begin = time.perf_counter()
        for _ in range(times):
            key.sign(report, algorithm)
        return (time.perf_counter() - begin) / times * 1e3

    quote = quoting.quote(report)
    authority = Authority.open(folder, now)
    text = json.dumps(authority.collateral("run", now))
    root = Root.from_certificate(authority.root_der)
    policy = AllOf(Strict(), MrEnclave(_IDENTITY.mrenclave))
    seconds = int(now.timestamp())

    def verified() -> float:
        begin = time.perf_counter()
        for _ in range(times):
            verify_quote(quote, Collateral.from_json(text), root, now, policy)
        return (time.perf_counter() - begin) / times * 1e3

    def judged() -> float:
        begin = time.perf_counter()
        for _ in range(times):
            collateral = dcap_qvl.QuoteCollateralV3.from_json(text)
            dcap_qvl.verify_with_root_ca(quote, collateral, root.der, seconds)
        return (time.perf_counter() - begin) / times * 1e3

    made, bare = interleave(scale.rounds, quoted, signed)
    ours, judge = interleave(scale.rounds, verified, judged)
    return [
        Figure("quote-made", "ms", Side("quote", made), Side("one ECDSA P-256 signature", bare), "value", 1.0,
               limits="the signature, one CMAC and the key that it takes"),
        Figure("quote-verified", "ms", Side("verify_quote", ours), Side("dcap-qvl", judge), "ratio", 1.3,
               limits="the checks that name the reason of a refusal in our own terms, before dcap-qvl is asked, "
                      "and its claims, which it gives as JSON",
               note="the platform and its collateral were met before: what was read of them is kept"),
    ]  # fmt: skip
