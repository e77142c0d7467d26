"""The wire between the library in a process and its package (SOCK_SEQPACKET; one request, one reply).

The other end is a guest: sizes, operations, identifiers are checked, an enclave belongs to the connection
that made it, and a bad message costs its sender an answer, nothing more. The layouts are written a second
time in C (``native/include``); a test compares behaviour by running both.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from strongroom.errors import StrongroomError
from strongroom.machine.leaf import Identity, LeafError, LeafFault
from strongroom.machine.package import Package

MAGIC = 0x4D475853
VERSION = 1
REPLY = 0x8000
STATUS_ERRNO = 0x40000000
STATUS_FAULT = 0x20000000
ABI = 1
MAX_ENCLAVES = 1024
"""Live enclaves of one connection."""

HEADER = struct.Struct("<IHHII")
HELLO_REQUEST = struct.Struct("<II")
HELLO_REPLY = struct.Struct("<QIIQQII")
EINIT_REQUEST = struct.Struct("<1808s4096sI")
EINIT_REPLY = struct.Struct("<Q32sHHI")
EREPORT_REQUEST = struct.Struct("<Q512s64s")
EGETKEY_REQUEST = struct.Struct("<Q512s")
EVENT_REQUEST = struct.Struct("<QII")

MAX_MESSAGE = HEADER.size + EINIT_REQUEST.size


class Op(IntEnum):
    """``op`` of a request; a reply has REPLY added."""

    HELLO = 1
    EINIT = 2
    EREPORT = 3
    EGETKEY = 4
    EVENT = 5


class HelloFlags(IntEnum):
    """``flags`` of the reply to HELLO."""

    SGX2 = 1
    KSS = 2
    PROVISION = 4


class Event(IntEnum):
    """``kind`` of EVENT."""

    REMOVED = 1
    DISABLED = 2


class ProtocolError(StrongroomError):
    """A message that is not of the protocol; answered with an errno."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


EventHook = Callable[[Event, Identity], None]


class Connection:
    """What one process may ask: its enclaves, by identifiers that mean nothing elsewhere."""

    _ids = itertools.count(1)

    def __init__(self, package: Package, slot: int, on_event: EventHook | None = None) -> None:
        self.package = package
        self.slot = slot
        self.pid: int | None = None
        self._on_event = on_event
        self._enclaves: dict[int, Identity] = {}

    def answer(self, message: bytes) -> bytes:
        """The reply to one message. Never raises for what the message holds."""
        op = 0
        try:
            if len(message) < HEADER.size:
                raise ProtocolError(errno.EPROTO, "a message is shorter than its header")
            magic, version, op, status, size = HEADER.unpack_from(message)
            if magic != MAGIC or version != VERSION:
                raise ProtocolError(errno.EPROTO, "the header's magic or version is wrong")
            body = message[HEADER.size :]
            if op & REPLY or status or size != len(body):
                raise ProtocolError(errno.EBADMSG, "the header does not describe its message")
            return _reply(op, 0, self._dispatch(op, body))
        except ProtocolError as error:
            return _reply(op, STATUS_ERRNO | error.number)
        except LeafError as error:
            return _reply(op, int(error.code))
        except LeafFault as error:
            return _reply(op, STATUS_FAULT | int(error.vector))
        except StrongroomError:
            return _reply(op, STATUS_ERRNO | errno.EINVAL)

    def _dispatch(self, op: int, body: bytes) -> bytes:
        if op == Op.HELLO:
            return self._hello(body)
        if self.pid is None:
            raise ProtocolError(errno.EPROTO, "the first message is HELLO")
        if op == Op.EINIT:
            return self._einit(body)
        if op == Op.EREPORT:
            enclave, target, data = _unpack(EREPORT_REQUEST, body)
            return self.package.ereport(self._identity(enclave), target, data)
        if op == Op.EGETKEY:
            enclave, request = _unpack(EGETKEY_REQUEST, body)
            return self.package.egetkey(self._identity(enclave), request)
        if op == Op.EVENT:
            return self._event(body)
        raise ProtocolError(errno.EOPNOTSUPP, f"no operation {op}")

    def _hello(self, body: bytes) -> bytes:
        pid, abi = _unpack(HELLO_REQUEST, body)
        if abi != ABI:
            raise ProtocolError(errno.EPROTONOSUPPORT, f"the library speaks version {abi}, not {ABI}")
        self.pid = pid
        fuses = self.package.fuses
        flags = (
            HelloFlags.SGX2 * fuses.sgx2
            | HelloFlags.KSS * fuses.kss
            | HelloFlags.PROVISION * fuses.provision_allowed
        )
        return HELLO_REPLY.pack(
            fuses.epc_pages,
            flags,
            0,
            self.package.attributes_allowed,
            fuses.xfrm_allowed,
            fuses.miscselect_allowed,
            self.slot,
        )

    def _einit(self, body: bytes) -> bytes:
        sigstruct, secs, flags = _unpack(EINIT_REQUEST, body)
        if len(self._enclaves) >= MAX_ENCLAVES:
            raise ProtocolError(errno.EMFILE, f"a process has at most {MAX_ENCLAVES} enclaves")
        identity = self.package.einit(sigstruct, secs, flags)
        enclave = next(self._ids)
        self._enclaves[enclave] = identity
        return EINIT_REPLY.pack(enclave, identity.mrsigner, identity.isv_prod_id, identity.isv_svn, 0)

    def _event(self, body: bytes) -> bytes:
        enclave, kind, reserved = _unpack(EVENT_REQUEST, body)
        if kind not in (Event.REMOVED, Event.DISABLED) or reserved:
            raise ProtocolError(errno.EINVAL, f"no event {kind}")
        identity = self._identity(enclave)
        del self._enclaves[enclave]  # a disabled enclave gets no key and no report any more
        if self._on_event is not None:
            self._on_event(Event(kind), identity)
        return b""

    def _identity(self, enclave: int) -> Identity:
        try:
            return self._enclaves[enclave]
        except KeyError:
            raise ProtocolError(errno.ENOENT, "this connection has no such enclave") from None


def _reply(op: int, status: int, body: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, VERSION, (op | REPLY) & 0xFFFF, status, len(body)) + body


def _unpack(layout: struct.Struct, body: bytes) -> tuple[Any, ...]:
    if len(body) != layout.size:
        raise ProtocolError(errno.EMSGSIZE, f"the message is {len(body)} bytes, not {layout.size}")
    return layout.unpack(body)


def serve_connection(
    sock: socket.socket, package: Package, slot: int, on_event: EventHook | None = None
) -> None:
    """Answer one process until it goes (blocking; for a thread), then close ``sock``.

    Raises nothing for what a guest does. The caller gives the EPC slot back when this returns.
    """
    connection = Connection(package, slot, on_event)
    with sock:
        while True:
            try:
                # No room for ancillary data: descriptors that a guest sends are closed by the kernel.
                message, _, flags, _ = sock.recvmsg(MAX_MESSAGE + 1)
                if not message and not flags & socket.MSG_TRUNC:
                    return
                sock.sendall(connection.answer(message))
            except OSError:
                return
