"""C's structures and Python's, written twice: every member of one is a field of the other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import images
import pytest
from native_machine import Machine

from strongroom.isa.enclave import Exinfo, Gprsgx, Secinfo, Secs, Tcs
from strongroom.isa.report import Keyrequest, Report, Targetinfo
from strongroom.isa.sigstruct import Sigstruct
from strongroom.isa.structure import Structure
from strongroom.machine import rpc

STRUCTURES: dict[str, type[Structure]] = {
    "sgx_secs": Secs,
    "sgx_tcs": Tcs,
    "sgx_gprsgx": Gprsgx,
    "sgx_exinfo": Exinfo,
    "sgx_secinfo": Secinfo,
    "sgx_targetinfo": Targetinfo,
    "sgx_report": Report,
    "sgx_keyrequest": Keyrequest,
    "sgx_sigstruct": Sigstruct,
}
MESSAGES = {
    "rpc_header": rpc.HEADER.size,
    "rpc_hello_reply": rpc.HELLO_REPLY.size,
    "rpc_einit": rpc.EINIT_REQUEST.size,
    "rpc_einit_reply": rpc.EINIT_REPLY.size,
    "rpc_ereport": rpc.EREPORT_REQUEST.size,
    "rpc_egetkey": rpc.EGETKEY_REQUEST.size,
}


def _leaves(structure: type[Structure], base: int = 0) -> Iterator[tuple[int, int]]:
    for field in structure.FIELDS:
        if isinstance(field.kind, str):
            yield base + field.offset, field.size
        else:
            yield from _leaves(field.kind, base + field.offset)


@pytest.fixture(scope="module")
def table(machine: Machine) -> list[list[str]]:
    program = images.REPOSITORY / "build" / "tests" / "offsets"
    text = subprocess.run([program], capture_output=True, text=True, check=True, timeout=10).stdout
    return [line.split() for line in text.splitlines()]


def test_sizes(table: list[list[str]]) -> None:
    sizes = {name: int(size) for name, member, _, size in table if member == "-"}
    for name, structure in STRUCTURES.items():
        assert sizes[name] == structure.SIZE, name
    for name, size in MESSAGES.items():
        assert sizes[name] == size, name


def test_members(table: list[list[str]]) -> None:
    compared = 0
    for name, member, offset, size in table:
        if member != "-" and name in STRUCTURES:
            assert (int(offset), int(size)) in set(_leaves(STRUCTURES[name])), f"{name}.{member}"
            compared += 1
    assert compared > 70
