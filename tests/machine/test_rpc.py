"""The wire: what a library may ask, and what a hostile process gets for its trouble."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.isa.leaves import SgxError
from strongroom.isa.report import Keyrequest
from strongroom.machine import rpc
from strongroom.machine.fuses import Fuses
from strongroom.machine.package import Package
from support.enclaves import secs, sigstruct
from support.fuzzing import examples
from support.package_server import PackageServer, package_server

M = b"m" * 32
HELLO = struct.pack("<II", 77, 1)
EINIT = sigstruct(M, product=2, svn=3).pack() + secs(M).pack() + bytes(4)
SEAL = Keyrequest(key_name=4, key_policy=1).pack()


def message(op: int, body: bytes = b"", **change: int) -> bytes:
    fields = {"magic": 0x4D475853, "version": 1, "op": op, "status": 0, "size": len(body)} | change
    return struct.pack("<IHHII", *fields.values()) + body


def connection(kind: str = "run", sgx2: bool = False, hello: bool = True) -> rpc.Connection:
    made = rpc.Connection(Package(Fuses.burn(kind, sgx2=sgx2, epc_pages=500)), slot=3)  # type: ignore[arg-type]
    if hello:
        assert ask(made, 1, HELLO)[0] == 0
    return made


def ask(target: rpc.Connection, op: int, body: bytes = b"", **change: int) -> tuple[int, bytes]:
    reply = target.answer(message(op, body, **change))
    magic, version, answered, status, size = struct.unpack_from("<IHHII", reply)
    assert (magic, version, size) == (0x4D475853, 1, len(reply) - 16)
    assert answered & 0x8000
    return status, reply[16:]


def einit(target: rpc.Connection) -> int:
    status, body = ask(target, 2, EINIT)
    assert status == 0
    return int(struct.unpack_from("<Q", body)[0])


def test_hello() -> None:
    status, body = ask(connection(hello=False), 1, HELLO)
    assert (status, len(body)) == (0, 40)
    pages, flags, _, attributes, xfrm, misc, slot = struct.unpack("<QIIQQII", body)
    assert (pages, flags, attributes, xfrm, misc, slot) == (500, 4, 0x36, 0xE7, 1, 3)
    _, body = ask(connection(sgx2=True, hello=False), 1, HELLO)
    assert struct.unpack_from("<I", body, 8) == (7,)
    assert struct.unpack_from("<Q", body, 16) == (0xB6,)


def test_einit_ereport_egetkey() -> None:
    wire = connection()
    status, body = ask(wire, 2, EINIT)
    enclave, mrsigner, product, svn, reserved = struct.unpack("<Q32sHHI", body)
    assert (status, product, svn, reserved) == (0, 2, 3, 0)
    name = struct.pack("<Q", enclave)
    status, report = ask(wire, 3, name + bytes(512) + b"d" * 64)
    assert (status, len(report)) == (0, 432)
    assert (report[64:96], report[128:160], report[320:384]) == (M, mrsigner, b"d" * 64)
    status, key = ask(wire, 4, name + SEAL)
    assert (status, len(key)) == (0, 16)
    assert ask(wire, 4, name + SEAL)[1] == key


def test_statuses_tell_error_fault_and_errno_apart() -> None:
    wire = connection()
    name = struct.pack("<Q", einit(wire))
    assert ask(wire, 2, sigstruct(b"x" * 32).pack() + secs(M).pack() + bytes(4))[0] == 4
    assert ask(wire, 4, name + Keyrequest(key_name=9).pack())[0] == SgxError.SGX_INVALID_KEYNAME
    assert ask(wire, 4, name + Keyrequest(key_name=4, key_policy=0x40).pack())[0] == 0x20000000 | 13
    assert ask(wire, 3, name + b"\xff" * 512 + bytes(64))[0] == 0x20000000 | 13
    assert ask(wire, 4, bytes(8) + SEAL)[0] == 0x40000000 | errno.ENOENT
    assert ask(wire, 2, EINIT[:-4] + struct.pack("<I", 8))[0] == 0x40000000 | errno.EINVAL


def test_enclaves_belong_to_their_connection() -> None:
    package = Package(Fuses.burn("run", sgx2=False, epc_pages=500))
    first, second = rpc.Connection(package, 0), rpc.Connection(package, 1)
    for wire in (first, second):
        ask(wire, 1, HELLO)
    mine, theirs = einit(first), einit(second)
    assert mine != theirs
    for op, body in ((3, bytes(576)), (4, SEAL), (5, struct.pack("<II", 1, 0))):
        assert ask(second, op, struct.pack("<Q", mine) + body)[0] == 0x40000000 | errno.ENOENT
    assert ask(first, 4, struct.pack("<Q", mine) + SEAL)[0] == 0


def test_a_removed_or_disabled_enclave_gets_nothing_any_more() -> None:
    told = []
    wire = rpc.Connection(
        Package(Fuses.burn("run", sgx2=False, epc_pages=500)),
        0,
        lambda event, who: told.append((event, who.mrenclave)),
    )
    ask(wire, 1, HELLO)
    for kind in (1, 2):
        name = struct.pack("<Q", einit(wire))
        assert ask(wire, 5, name + struct.pack("<II", kind, 0)) == (0, b"")
        assert ask(wire, 4, name + SEAL)[0] == 0x40000000 | errno.ENOENT
    assert told == [(rpc.Event.REMOVED, M), (rpc.Event.DISABLED, M)]
    name = struct.pack("<Q", einit(wire))
    assert ask(wire, 5, name + struct.pack("<II", 3, 0))[0] == 0x40000000 | errno.EINVAL
    assert ask(wire, 5, name + struct.pack("<II", 1, 1))[0] == 0x40000000 | errno.EINVAL


def test_number_of_enclaves_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_ENCLAVES", 2)
    wire = connection()
    first = einit(wire)
    einit(wire)
    assert ask(wire, 2, EINIT)[0] == 0x40000000 | errno.EMFILE
    ask(wire, 5, struct.pack("<QII", first, 1, 0))
    einit(wire)


def test_messages_out_of_form() -> None:
    wire = connection()
    for change in ({"magic": 1}, {"version": 2}, {"status": 1}, {"size": 7}, {"size": 9}):
        assert ask(wire, 1, HELLO, **change)[0] & 0x40000000
    assert ask(wire, 0x8001, HELLO)[0] == 0x40000000 | errno.EBADMSG
    for op, size in ((1, 7), (2, len(EINIT) - 1), (2, len(EINIT) + 1), (3, 583), (4, 521), (5, 15)):
        assert ask(wire, op, bytes(size))[0] == 0x40000000 | errno.EMSGSIZE
    assert ask(wire, 6)[0] == 0x40000000 | errno.EOPNOTSUPP
    assert ask(wire, 1, struct.pack("<II", 1, 2))[0] == 0x40000000 | errno.EPROTONOSUPPORT
    for op in (2, 3, 4, 5):
        assert ask(connection(hello=False), op, bytes(600))[0] == 0x40000000 | errno.EPROTO


@settings(max_examples=examples(300))
@given(st.binary(max_size=600) | st.builds(message, st.integers(0, 8), st.binary(max_size=600)))
def test_any_message_gets_one_answer(data: bytes) -> None:
    reply = SHARED.answer(data)
    assert len(reply) >= 16
    assert len(reply) == 16 + struct.unpack_from("<I", reply, 12)[0]


SHARED = connection()


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with package_server(epc_pages=500) as made:
        yield made


def test_over_a_socket(server: PackageServer) -> None:
    sock, slot = server.connect()
    with sock:
        sock.send(message(1, HELLO))
        assert struct.unpack_from("<I", sock.recv(9000), 16 + 36) == (slot,)
        # Too large, empty of meaning, with a descriptor: each costs an answer and nothing else.
        sock.send(b"x" * 60000)
        assert struct.unpack_from("<I", sock.recv(9000), 8) == (0x40000000 | errno.EPROTO,)
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(sock, [b"y"], [1, 2])
        assert struct.unpack_from("<I", sock.recv(9000), 8) == (0x40000000 | errno.EPROTO,)
        assert len(os.listdir("/proc/self/fd")) == before
        sock.sendmsg([message(2, EINIT)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        assert struct.unpack_from("<I", sock.recv(9000), 8) == (0,)
    server.join()
    assert server.epc.processes() == 0


def test_a_process_that_goes_without_reading(server: PackageServer) -> None:
    sock, _ = server.connect()
    sock.setblocking(False)
    with sock:
        try:
            for _ in range(1000):
                sock.send(message(1, HELLO))
        except BlockingIOError:
            pass
    server.join()
    assert server.epc.processes() == 0


def test_several_processes_at_once(server: PackageServer) -> None:
    ends = [server.connect() for _ in range(8)]
    assert len({slot for _, slot in ends}) == 8
    for sock, _ in ends:
        sock.send(message(1, HELLO))
        sock.send(message(2, EINIT))
    names = set()
    for sock, _ in ends:
        sock.recv(9000)
        names.add(sock.recv(9000)[16:24])
        sock.close()
    assert len(names) == 8
    server.join()
    assert server.epc.processes() == 0
