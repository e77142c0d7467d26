"""The quoting enclave, its wire, and the PKI's files."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from datetime import UTC, datetime

import dcap_qvl
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from strongroom.attestation.quote import Quote
from strongroom.errors import FormatError, StrongroomError
from strongroom.isa.report import Report
from strongroom.isa.software_tcb import FMSPC
from strongroom.machine import pki
from strongroom.machine.package import Identity, Package
from strongroom.machine.quoting import QuotingEnclave, ReportRefused, answer, serve_quotes

IDENTITY = Identity(
    attributes=0x5, xfrm=0x3, miscselect=0, mrenclave=b"e" * 32, mrsigner=b"s" * 32, isv_prod_id=1, isv_svn=2
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def package(home):
    return Package.manufacture(home / "vm", "run", sgx2=False, epc_pages=64)


@pytest.fixture(scope="module")
def qe(package, home):
    return QuotingEnclave(package, home, "sealed")


def report(package, qe, data=bytes(64)):
    return package.ereport(IDENTITY, qe.target_info(), data)


def test_quote_carries_the_report(package, qe):
    made = report(package, qe, b"x" * 64)
    assert qe.quote(made)[48:432] == made[:384]


def test_qe_report_binds_the_attestation_key(package, qe):
    quote = qe.quote(report(package, qe))
    public, qe_report = quote[500:564], quote[564:948]
    auth = quote[1014:1046]
    assert qe_report[320:352] == hashlib.sha256(public + auth).digest()


@given(st.integers(0, 383), st.integers(0, 7))
def test_an_altered_report_is_refused(package, qe, at, bit):
    made = bytearray(report(package, qe))
    made[at] ^= 1 << bit
    with pytest.raises((ReportRefused, FormatError)):
        qe.quote(bytes(made))


def test_another_packages_report_is_refused(qe, tmp_path):
    other = Package.manufacture(tmp_path / "other", "run", sgx2=False, epc_pages=64)
    with pytest.raises(ReportRefused):
        qe.quote(other.ereport(IDENTITY, qe.target_info(), bytes(64)))


def test_a_report_for_another_target_is_refused(package, qe):
    with pytest.raises(ReportRefused):
        qe.quote(package.ereport(IDENTITY, bytes(512), bytes(64)))


def test_pck_extension_as_the_judge_reads_it(package, qe):
    extension = dcap_qvl.parse_quote(qe.quote(report(package, qe))).pck_extension()
    assert extension.fmspc == FMSPC["run"]
    assert extension.pce_svn == 1
    assert extension.sgx_type == 0
    assert len(extension.ppid) == 16


def test_a_clock_that_is_wrong_just_now_is_not_in_the_pck_certificate(package, qe):
    """It lasts as long as its issuer, so that quotes verify once the clock is right again."""
    chain = Quote.parse(qe.quote(report(package, qe))).pem_chain()
    leaf, issuer, _ = map(x509.load_pem_x509_certificate, chain)
    assert leaf.not_valid_before_utc == issuer.not_valid_before_utc
    assert leaf.not_valid_after_utc == issuer.not_valid_after_utc


@pytest.mark.parametrize(
    ("oid", "der"),
    [("1.2.840.113741.1.13.1", "06092a864886f84d010d01"), ("2.999.1", None), ("1.3.6.1", "06032b0601")],
)
def test_oid_in_der(oid, der):
    if der:
        assert pki._oid(oid).hex() == der


# --- the wire ---


def test_serve_quotes(package, qe):
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_quotes, args=(theirs, qe))
    thread.start()
    with ours:

        def ask(request):
            ours.sendall(struct.pack("<I", len(request)) + request)
            size, status = struct.unpack("<II", ours.recv(8, socket.MSG_WAITALL))
            return status, ours.recv(size - 4, socket.MSG_WAITALL) if size > 4 else b""

        assert ask(b"\x01") == (0, qe.target_info())
        status, quote = ask(b"\x02" + report(package, qe))
        assert status == 0
        assert dcap_qvl.parse_quote(quote).fmspc() == FMSPC["run"].hex().upper()
        assert ask(b"\x02" + bytes(Report.SIZE)) == (2, b"")
        assert ask(b"\x02short")[0] == 1
        assert ask(b"\x07")[0] == 1
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("head", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x05\0\0\0\x02"])
def test_a_hostile_head_ends_the_connection(qe, head):
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_quotes, args=(theirs, qe))
    thread.start()
    with ours:
        ours.sendall(head)
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b""
    thread.join(10)
    assert not thread.is_alive()


@given(st.binary(max_size=500))
def test_hostile_requests_get_a_status(qe, request_bytes):
    status, body = answer(request_bytes, qe)
    assert status != 0 or request_bytes == b"\x01"
    assert status == 0 or body == b""


# --- files ---


def test_secret_files_are_private_and_stay(home, package, qe):
    for path in (home / "pki" / "authority.json", home / "vm" / "pck.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not [name for name in os.listdir(home / "pki") if name.startswith(".")]
    first = pki.provision(home, home / "vm", "run")
    again = pki.provision(home, home / "vm", "run")
    assert first.ppid == again.ppid


def test_a_package_does_not_change_its_kind(home, package, qe):
    with pytest.raises(StrongroomError, match="exec"):
        pki.provision(home, home / "vm", "exec")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"root": 1}', '{"root": "x"}'])
def test_damaged_authority(tmp_path, text):
    folder = tmp_path / "pki"
    folder.mkdir(mode=0o700)
    path = folder / "authority.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StrongroomError) as caught:
        pki.Authority.open(tmp_path)
    assert str(path) in str(caught.value)


def test_an_open_authority_file_is_refused(tmp_path):
    pki.Authority.open(tmp_path)
    (tmp_path / "pki" / "authority.json").chmod(0o644)
    with pytest.raises(StrongroomError, match="chmod 600"):
        pki.Authority.open(tmp_path)


def test_two_first_uses_agree(tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(pki.Authority.open(tmp_path).root_der)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1


def test_errors_do_not_carry_keys(tmp_path):
    authority = pki.Authority.make(datetime.now(UTC))
    assert "PRIVATE" not in repr(authority)
