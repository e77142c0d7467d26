"""Attack 3: a write into a code page from outside, by /proc/PID/mem and by ptrace's poke.

The byte written is the last of an executable mapping (padding): real code pages, and nothing that runs is hurt.
"""

from __future__ import annotations

import ctypes
import os

import common
from common import GOT, REFUSED, Attempt

PTRACE_PEEKDATA, PTRACE_POKEDATA, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 2, 5, 17, 0x4206, 0x4207
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    answer: int = libc.ptrace(request, pid, address, data)
    if answer == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer & 0xFFFFFFFFFFFFFFFF


def by_file(pid: int, address: int) -> Attempt:
    name = "write into a code page by /proc/PID/mem"
    try:
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    except OSError as error:
        return Attempt(name, REFUSED, common.why(error))
    try:
        before = os.pread(descriptor, 1, address)
        os.pwrite(descriptor, bytes([before[0] ^ 0xFF]), address)
        after = os.pread(descriptor, 1, address)
    except OSError as error:
        return Attempt(name, REFUSED, common.why(error))
    finally:
        os.close(descriptor)
    if after == before:
        return Attempt(name, REFUSED, "the write was dropped: the byte is as before")
    return Attempt(name, GOT, f"the byte at {address:#x} changed from {before.hex()} to {after.hex()}")


def by_ptrace(pid: int, address: int) -> Attempt:
    name = "write into a code page by ptrace"
    if not common.alive(pid):
        return Attempt(name, REFUSED, "the process had been killed before")
    word = address & ~7
    try:
        ptrace(PTRACE_SEIZE, pid)
    except OSError as error:
        return Attempt(name, REFUSED, common.why(error))
    try:
        ptrace(PTRACE_INTERRUPT, pid)
        _, status = os.waitpid(pid, 0x40000000)  # __WALL
        if os.WIFSIGNALED(status) or os.WIFEXITED(status):
            return Attempt(name, REFUSED, "the process was killed at the attach")
        before = ptrace(PTRACE_PEEKDATA, pid, word)
        ptrace(PTRACE_POKEDATA, pid, word, before ^ (0xFF << 56))
        after = ptrace(PTRACE_PEEKDATA, pid, word)
        ptrace(PTRACE_DETACH, pid)
    except OSError as error:
        killed = common.ended_within(pid, 0.3)
        return Attempt(name, REFUSED, "the process was killed at the attach" if killed else common.why(error))
    if after == before:
        return Attempt(name, REFUSED, "the write was dropped: the word is as before")
    return Attempt(name, GOT, f"the word at {word:#x} changed from {before:016x} to {after:016x}")


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    try:
        places = common.of_interest(given.pid, given.elrange, executable=True)
    except OSError as error:
        places = []
        reason = common.why(error)
    else:
        reason = "no executable page is mapped"
    if places:
        last = max(places, key=lambda one: one.end - one.start).end - 1
        common.report(by_file(given.pid, last), by_ptrace(given.pid, last))
    else:
        common.report(
            *(
                Attempt(f"write into a code page by {way}", REFUSED, reason)
                for way in ("/proc/PID/mem", "ptrace")
            )
        )
