"""Measured, entered, reported, signed, verified: a quote of an enclave that really ran on the machine."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import images
import pytest
from native_machine import Machine

from strongroom.attestation.collateral import Collateral
from strongroom.attestation.errors import UnnamedRoot, WrongEnclave
from strongroom.attestation.policy import AllOf, MinSvn, MrEnclave, Product, ReportDataIs, Signer, Strict
from strongroom.attestation.roots import INTEL, Root
from strongroom.attestation.verify import verify_quote
from strongroom.inside.binding import host_report_data
from strongroom.machine.pki import Authority
from strongroom.machine.quoting import QuotingEnclave, ReportRefused


def report_of_the_enclave(machine: Machine, report_data: bytes, target_info: bytes) -> bytes:
    """The REPORT that EREPORT, executed inside, gives."""
    program = [str(images.BUILD / "host"), "report", str(machine.image), str(machine.signature), "1"]
    done = machine.server.run(program, input=report_data + target_info)
    assert done.returncode == 0, done.stderr
    said, report = done.stdout.decode().splitlines()
    assert said == "ret 0 function 4 vector 0"
    return bytes.fromhex(report)


def test_quote_of_a_running_enclave(machine: Machine, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    qe = QuotingEnclave(machine.server.package, tmp_path, "sealed")
    data = host_report_data(b"challenge")
    quote = qe.quote(report_of_the_enclave(machine, data, qe.target_info()))

    authority = Authority.open(tmp_path)
    collateral = Collateral.from_json(json.dumps(authority.collateral("run", now)))
    root = Root.from_certificate(authority.root_der)
    mrsigner = hashlib.sha256(machine.signer.modulus.to_bytes(384, "little")).digest()
    policy = AllOf(
        Strict(), MrEnclave(machine.mrenclave), Signer(mrsigner), Product(7), MinSvn(3), ReportDataIs(data)
    )
    verified = verify_quote(quote, collateral, root, now, policy)
    assert verified.kind == "run"

    with pytest.raises(UnnamedRoot):
        verify_quote(quote, collateral, INTEL, now, policy)
    with pytest.raises(WrongEnclave):
        verify_quote(quote, collateral, root, now, MrEnclave(bytes(32)))


def test_report_for_another_target_is_not_quoted(machine: Machine, tmp_path: Path) -> None:
    qe = QuotingEnclave(machine.server.package, tmp_path, "sealed")
    with pytest.raises(ReportRefused):
        qe.quote(report_of_the_enclave(machine, bytes(64), bytes(512)))
