"""A second process in the same VM, as the VM's root and as an ordinary user there, looks for the enclave's values.

Against an enclave this program runs by `strongroom exec` in the enclave's VM; the control is any other process of the
host, looking at an ordinary process. --drop gives up root first.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from pathlib import Path

import common
from common import GOT, NOT_TRIED, REFUSED, Attempt
from everywhere import Tally, ours
from memory import CHUNK, libc

PTRACE_SEIZE = 0x4206
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long
NOBODY = 65534


def memory(who: str, marker: bytes, pids: list[int]) -> Attempt:
    """All memory of all processes that can be seen."""
    tally = Tally(f"{who}: memory of the processes it sees", marker)
    tally.words = tally.words[:1]  # in hex it is an argument of ours
    own = ours() | {os.getpid()}
    seen = [pid for pid in pids if pid not in own]
    for pid in seen:
        try:
            where = [one for one in common.mappings(pid) if not one.path.startswith("[v")]
            descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except OSError as error:
            tally.refused, tally.last = tally.refused + 1, f"process {pid}: {common.why(error)}"
            continue
        tally.things += 1
        for one in where:
            tail = b""
            for at in range(one.start, one.end, CHUNK):
                try:
                    block = os.pread(descriptor, min(CHUNK, one.end - at), at)
                except OSError as error:
                    tally.last, tail = common.why(error), b""
                    continue
                tally.look(tail + block, f"process {pid}")
                tail = block[-len(marker) :]
        os.close(descriptor)
    if not seen:
        return Attempt(tally.name, REFUSED, "it sees no process but its own")
    return tally.attempt(f"of {len(seen)} processes that it sees")


def attach(who: str, number: int) -> Attempt:
    """ptrace of the process by the number that it has on the host."""
    name = f"{who}: attaches to the process by its number on the host"
    if libc.ptrace(PTRACE_SEIZE, number, 0, 0) == 0:
        return Attempt(name, GOT, f"attached to process {number}")
    return Attempt(name, REFUSED, common.why(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))))


def kernel_memory(who: str) -> Attempt:
    name = f"{who}: /dev/mem, /dev/kmem, /proc/kcore"
    reasons = []
    for file in ("/dev/mem", "/dev/kmem", "/proc/kcore"):
        try:
            os.close(os.open(file, os.O_RDONLY))
            return Attempt(name, GOT, f"{file} opens")
        except OSError as error:
            reasons.append(error)
    if all(error.errno == 2 for error in reasons):
        return Attempt(name, NOT_TRIED, "this kernel offers none of them")
    return Attempt(name, REFUSED, common.why(next(error for error in reasons if error.errno != 2)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marker", type=bytes.fromhex, required=True)
    parser.add_argument(
        "--pid", type=int, required=True, help="the process that holds it, by its number on the host"
    )
    parser.add_argument(
        "--all", action="store_true", help="look at all processes that are seen, not at that one"
    )
    parser.add_argument("--drop", action="store_true")
    given = parser.parse_args()
    if given.drop and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    seen = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    pids = seen if given.all else [given.pid]
    common.report(memory(who, given.marker, pids), attach(who, given.pid), kernel_memory(who))
