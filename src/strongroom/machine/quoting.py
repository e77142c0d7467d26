"""The quoting enclave in software: a REPORT of this package in, a DCAP ECDSA quote (version 3) out.

The report key is asked of the package by EGETKEY under the QE's own identity, as an enclave would, so that a REPORT
from another package, for another target or altered on its way is refused. The attestation key lives as long as the
object; its certification (QE REPORT, signed by the PCK key) is made once, and a quote costs one CMAC and one signature.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import struct
from pathlib import Path

from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import algorithms

from strongroom.errors import FormatError, StrongroomError
from strongroom.isa import dcap
from strongroom.isa.flags import KeyName
from strongroom.isa.report import Keyrequest, Report
from strongroom.isa.software_tcb import PCE_SVN, QE_ISV_PROD_ID, QE_ISV_SVN, QE_USER_DATA, Level
from strongroom.machine.package import Identity, Package
from strongroom.machine.pki import Authority, provision, raw_point, sign_raw
from strongroom.machine.qe_identity import QE_ATTRIBUTE_FLAGS, QE_MRENCLAVE, QE_MRSIGNER, QE_XFRM

QE_AUTH_DATA_SIZE = 32

STATUS_OK = 0
STATUS_BAD_REQUEST = 1
STATUS_REPORT_REFUSED = 2
OP_TARGET_INFO = 1
OP_QUOTE = 2
MAX_REQUEST_SIZE = 1 + Report.SIZE


class ReportRefused(StrongroomError):
    """The REPORT was not made on this package for this quoting enclave, or was altered."""


class QuotingEnclave:
    """Quotes for one package at one level. Safe to use from several threads: nothing changes after the start."""

    def __init__(self, package: Package, home: Path, level: Level = "faithful") -> None:
        """``exec`` packages quote at ``faithful`` whatever ``level`` says. Raises StrongroomError."""
        if package.directory is None:
            raise StrongroomError(
                "this package is in memory only and has no PCK key", "use one with a folder"
            )
        self._package = package
        self.level: Level = "faithful" if package.kind == "exec" else level
        pck = provision(home, package.directory, package.kind)
        chain = Authority.open(home).pck_chain(
            pck.key.public_key(),
            pck.ppid,
            package.kind,
            self.level,
            package.fuses.microcode,
        )
        self._identity = Identity(
            attributes=QE_ATTRIBUTE_FLAGS,
            xfrm=QE_XFRM,
            miscselect=0,
            mrenclave=QE_MRENCLAVE,
            mrsigner=QE_MRSIGNER,
            isv_prod_id=QE_ISV_PROD_ID,
            isv_svn=QE_ISV_SVN,
        )
        self._target_info = package.target_info(self._identity).pack()
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = raw_point(self._key.public_key())
        auth = secrets.token_bytes(QE_AUTH_DATA_SIZE)
        binding = hashlib.sha256(public + auth).digest() + bytes(32)
        qe_report = package.ereport(self._identity, self._target_info, binding)[: dcap.REPORT_BODY_SIZE]
        self._header = dcap.QuoteHeader(qe_svn=QE_ISV_SVN, pce_svn=PCE_SVN, user_data=QE_USER_DATA).pack()
        self._certification = (
            public
            + qe_report
            + sign_raw(pck.key, qe_report)
            + struct.pack("<H", len(auth))
            + auth
            + struct.pack("<HI", dcap.CertificationDataType.PCK_CHAIN_PEM, len(chain))
            + chain
        )

    def target_info(self) -> bytes:
        """TARGETINFO (512 bytes) for which an enclave makes the REPORT to be quoted."""
        return self._target_info

    def quote(self, report: bytes) -> bytes:
        """The quote of ``report`` (432 bytes). Raises ReportRefused, or FormatError where it is not a REPORT."""
        body = self._checked(report)
        signed = self._header + body
        signature = sign_raw(self._key, signed)
        size = struct.pack("<I", len(signature) + len(self._certification))
        return signed + size + signature + self._certification

    def _checked(self, report: bytes) -> bytes:
        parsed = Report.unpack(report)
        body = report[: dcap.REPORT_BODY_SIZE]
        request = Keyrequest(key_name=KeyName.REPORT, key_id=parsed.key_id)
        mac = cmac.CMAC(algorithms.AES(self._package.egetkey(self._identity, request.pack())))
        mac.update(body)
        if not hmac.compare_digest(mac.finalize(), parsed.mac):
            raise ReportRefused(
                "the REPORT's MAC does not hold", "make it on this VM, for the quoting enclave"
            )
        return bytes(body)


def _receive(sock: socket.socket, size: int) -> bytes | None:
    """Exactly ``size`` bytes, None at the peer's end. Raises FormatError for an end amid them."""
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            if data:
                raise FormatError("the request ends early")
            return None
        data += part
    return bytes(data)


def answer(request: bytes, qe: QuotingEnclave) -> tuple[int, bytes]:
    """Status and body for one request (u8 op, body); hostile bytes get a status, never an exception."""
    op, body = request[:1], request[1:]
    try:
        if op == bytes([OP_TARGET_INFO]) and not body:
            return STATUS_OK, qe.target_info()
        if op == bytes([OP_QUOTE]):
            return STATUS_OK, qe.quote(body)
    except ReportRefused:
        return STATUS_REPORT_REFUSED, b""
    except (FormatError, StrongroomError):
        pass
    return STATUS_BAD_REQUEST, b""


def serve_quotes(sock: socket.socket, qe: QuotingEnclave) -> None:
    """Serve one connection (stream) until its end; for a thread.

    A request is ``u32 size, u8 op, body`` with ``size`` counting op and body; a reply ``u32 size, u32 status, body``
    with ``size`` counting status and body. A size that no request has ends the connection.
    """
    with sock:
        try:
            while (head := _receive(sock, 4)) is not None:
                (size,) = struct.unpack("<I", head)
                if not 1 <= size <= MAX_REQUEST_SIZE:
                    return
                request = _receive(sock, size)
                if request is None:
                    return
                status, body = answer(request, qe)
                sock.sendall(struct.pack("<II", 4 + len(body), status) + body)
        except (OSError, FormatError):
            return
