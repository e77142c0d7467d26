"""Attack 2: another process reads memory by /proc/PID/mem and process_vm_readv."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import common
from common import GOT, MET, REFUSED, Attempt, Mapping

CHUNK = 1 << 18
libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def vm_reader(pid: int) -> Callable[[int, int], bytes]:
    """A reader by process_vm_readv(2); raises OSError."""

    def read(address: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        local, remote = Iovec(ctypes.addressof(buffer), size), Iovec(address, size)
        done = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return buffer.raw[:done]

    return read


def search(name: str, read: Callable[[int, int], bytes], where: list[Mapping], marker: bytes) -> Attempt:
    """Read all of ``where`` and look for the marker."""
    hits = had = refused = 0
    last: OSError | None = None
    for one in where:
        tail = b""
        for at in range(one.start, one.end, CHUNK):
            size = min(CHUNK, one.end - at)
            try:
                block = read(at, size)
            except OSError as error:
                refused, last, tail = refused + size, error, b""
                continue
            had += len(block)
            refused += size - len(block)
            hits += (tail + block).count(marker)
            tail = block[-len(marker) + 1 :]
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in {common.megabytes(had)}")
    text = (
        f"marker not in the {common.megabytes(had)} that could be read; {common.megabytes(refused)} refused"
    )
    if last is not None:
        text += f": {common.why(last)}"
    return Attempt(name, REFUSED if refused else MET, text)


def code(name: str, read: Callable[[int, int], bytes], where: list[Mapping]) -> Attempt:
    """Read executable pages: code is not data, and what is had of it is said."""
    had = 0
    last: OSError | None = None
    for one in where:
        for at in range(one.start, one.end, CHUNK):
            try:
                had += len(read(at, min(CHUNK, one.end - at)))
            except OSError as error:
                last = error
    if had:
        return Attempt(name, GOT, f"{common.megabytes(had)} of machine code (not of data)")
    return Attempt(name, REFUSED, common.why(last) if last else "no executable page is mapped")


def attempts(pid: int, marker: bytes, elrange: int) -> list[Attempt]:
    names = ("/proc/PID/mem, data", "process_vm_readv, data", "/proc/PID/mem, code pages")
    try:
        data = common.of_interest(pid, elrange, executable=False)
        text = common.of_interest(pid, elrange, executable=True)
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError as error:
        return [Attempt(name, REFUSED, common.why(error)) for name in names]

    def read(address: int, size: int) -> bytes:
        return os.pread(descriptor, size, address)

    try:
        return [
            search(names[0], read, data, marker),
            search(names[1], vm_reader(pid), data, marker),
            code(names[2], read, text),
        ]
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    common.report(*attempts(given.pid, given.marker, given.elrange))
