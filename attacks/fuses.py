"""The host's root reads the package's fuses on the disk: with them it is the processor.

Against an enclave: its sealing key is derived, and a quote for its identity is made, without it. Against an ordinary
process: its key file is read, and what it says of itself is written by somebody else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import common
from common import GOT, REFUSED, Attempt

KEY, QUOTE = "the sealing key, from what is on the disk", "a quote by somebody else, for the same identity"
# SIGSTRUCT and KEYREQUEST: SDM vol. 3D. A program may mask what its keys depend on; the common choices.
MASKS = (~0 & ~1, ~0, 0xFF0000000000000B | 2, 2)


def of_enclave(quote: bytes, key: bytes, home: Path, collateral: Path, root: Path) -> list[Attempt]:
    from strongroom.attestation.collateral import Collateral
    from strongroom.attestation.errors import VerificationError
    from strongroom.attestation.policy import UnsafeAnything
    from strongroom.attestation.quote import Quote
    from strongroom.attestation.roots import Root
    from strongroom.attestation.verify import verify_quote
    from strongroom.errors import StrongroomError
    from strongroom.isa.flags import KeyName, KeyPolicy
    from strongroom.isa.report import Keyrequest
    from strongroom.machine.package import Identity, Package
    from strongroom.machine.quoting import QuotingEnclave

    body = Quote.parse(quote).body
    identity = Identity(
        attributes=body.attributes, xfrm=body.xfrm, miscselect=body.miscselect, mrenclave=body.mrenclave,
        mrsigner=body.mrsigner, isv_prod_id=body.isv_prod_id, isv_svn=body.isv_svn,
    )  # fmt: skip
    derived = forged = False
    last = "no fuses in the platform's folder"
    for folder in sorted(home.glob("vms/*/run")):
        try:
            package = Package.open(folder)
        except (OSError, StrongroomError) as error:
            last = str(error)
            continue
        for mask in MASKS:
            request = Keyrequest(
                key_name=KeyName.SEAL, key_policy=int(KeyPolicy.MRENCLAVE), isv_svn=body.isv_svn,
                cpu_svn=body.cpu_svn, attributes_mask=mask & (1 << 64) - 1, xfrm_mask=3,
            )  # fmt: skip
            derived |= hashlib.sha256(package.egetkey(identity, request.pack())).digest() == key
        enclave = QuotingEnclave(package, home, "sealed")
        lie = secrets.token_bytes(64)
        made = enclave.quote(package.ereport(identity, enclave.target_info(), lie))
        try:
            verify_quote(
                made, Collateral.load(collateral), Root.from_file(root), datetime.now(UTC), UnsafeAnything()
            )
            forged = True
        except VerificationError as error:
            last = str(error)
    return [
        Attempt(KEY, GOT, "derived from the fuses: equal to the one that the enclave has")
        if derived else Attempt(KEY, REFUSED, f"not derived: {last}"),
        Attempt(QUOTE, GOT, "verified under the software root: MRENCLAVE of the enclave, report data of the attacker's")
        if forged else Attempt(QUOTE, REFUSED, f"not accepted: {last}"),
    ]  # fmt: skip


def of_ordinary(pid: int, key: bytes) -> list[Attempt]:
    had = False
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if "ordinary-key-" in os.readlink(entry):
            had |= hashlib.sha256(entry.read_bytes()).digest() == key
    said = {"program": hashlib.sha256(b"attacks/ordinary.py").hexdigest(), "data": secrets.token_hex(32)}
    read = json.loads(json.dumps(said))
    return [
        Attempt(KEY, GOT, "read: the process's key file")
        if had
        else Attempt(KEY, REFUSED, "no key file was found"),
        Attempt(QUOTE, GOT, f"believed: there is nothing to check {sorted(read)} by"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--key", type=bytes.fromhex, required=True, help="SHA-256 of the target's key")
    for name in ("quote", "home", "collateral", "root"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    if given.quote:
        common.report(
            *of_enclave(given.quote.read_bytes(), given.key, given.home, given.collateral, given.root)
        )
    else:
        common.report(*of_ordinary(given.pid, given.key))
