"""Less than this machine has: for a child before its exec (``preexec_fn``), and for all that it starts."""

from __future__ import annotations

import ctypes
import resource
import struct

EIGHT_MIB = 8 << 20
MEMFD_SECRET, PKEY_ALLOC, UNSHARE, ENOSYS = 447, 330, 272, 38


def _refuse(number: int) -> None:
    """From here on this system call answers ENOSYS, as on a kernel without it (seccomp, classic BPF)."""
    libc = ctypes.CDLL(None, use_errno=True)
    # ld nr; jeq number: errno ENOSYS, else allow.
    lines = (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    )
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "seccomp")


def no_secret_memory() -> None:
    _refuse(MEMFD_SECRET)


def no_protection_keys() -> None:
    _refuse(PKEY_ALLOC)


def eight_mib() -> None:
    """The default of RLIMIT_MEMLOCK."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (EIGHT_MIB, EIGHT_MIB))


def no_namespaces() -> None:
    _refuse(UNSHARE)
