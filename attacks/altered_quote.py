"""Attack 6: what an enclave says of itself is changed on the way to whoever relies on it.

For a quote, one bit in each part of it: header, measurement, flags, report data, signature, attestation key,
certification data. For an ordinary process (--statement), what it says of itself: a JSON text with the hash of its
program.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from common import GOT, NOT_TRIED, REFUSED, Attempt, report

# Offsets in an ECDSA quote, version 3 (Intel SGX DCAP Quoting Library API, appendix A.4): header 48,
# report body 384, length 4, then the signature data.
PARTS = {
    "version": 0, "QE SVN": 8, "user data": 30, "CPUSVN": 48, "attributes": 96, "MRENCLAVE": 112, "MRSIGNER": 176,
    "ISVPRODID": 304, "ISVSVN": 306, "report data": 368, "signature": 436, "attestation key": 500,
    "QE report": 564 + 64, "QE report signature": 948, "QE authentication data": 1014, "PCK certificates": 1400,
}  # fmt: skip


def of_quote(quote: bytes, collateral: Path, root: Path) -> Attempt:
    """Each part altered in turn; every one has to be refused."""
    from strongroom.attestation.collateral import Collateral
    from strongroom.attestation.errors import VerificationError
    from strongroom.attestation.policy import UnsafeAnything
    from strongroom.attestation.roots import Root
    from strongroom.attestation.verify import verify_quote

    name = "an altered quote"
    given = (Collateral.load(collateral), Root.from_file(root), datetime.now(UTC), UnsafeAnything())
    try:
        verify_quote(quote, *given)
    except VerificationError as error:
        return Attempt(name, NOT_TRIED, f"the unaltered quote is refused: {error}")
    believed = []
    reasons: dict[str, int] = {}
    for part, offset in PARTS.items():
        altered = bytearray(quote)
        altered[offset] ^= 0x01
        try:
            verify_quote(bytes(altered), *given)
            believed.append(part)
        except VerificationError as error:
            reasons[type(error).__name__] = reasons.get(type(error).__name__, 0) + 1
    if believed:
        return Attempt(name, GOT, f"believed with altered {', '.join(believed)}")
    said = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return Attempt(name, REFUSED, f"{len(PARTS)} of {len(PARTS)} parts altered, each refused ({said})")


def of_statement(program: Path) -> Attempt:
    """An ordinary process can only say what it is; whoever reads it has nothing to check it by."""
    name = "an altered quote"
    said = {"program": hashlib.sha256(program.read_bytes()).hexdigest()}
    altered = json.dumps({**said, "program": hashlib.sha256(b"another program").hexdigest()})
    read = json.loads(altered)["program"]
    if read != said["program"]:
        return Attempt(name, GOT, f"believed: the reader took {read[:16]}… for the hash of the program")
    return Attempt(name, REFUSED, "the altered statement was not believed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statement", type=Path)
    parser.add_argument("--quote", type=Path)
    parser.add_argument("--collateral", type=Path)
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    if arguments.statement:
        report(of_statement(arguments.statement))
    else:
        report(of_quote(arguments.quote.read_bytes(), arguments.collateral, arguments.root))
