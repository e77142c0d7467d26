"""The target's descriptors are taken by pidfd_getfd and mapped here; its mappings are opened by /proc/PID/map_files."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import common
from common import GOT, MET, NOT_TRIED, REFUSED, Attempt

NR_PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def take(pidfd: int, number: int) -> int:
    """The target's descriptor as one of ours. Raises OSError."""
    done: int = libc.syscall(NR_PIDFD_GETFD, pidfd, number, 0)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def count(descriptor: int, marker: bytes) -> tuple[int, int]:
    """(occurrences, bytes) of what can be mapped of it. Raises OSError, ValueError."""
    size = os.fstat(descriptor).st_size
    with mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        hits = at = 0
        while (at := view.find(marker, at)) >= 0:
            hits, at = hits + 1, at + 1
        return hits, size


def by_pidfd(pid: int, marker: bytes) -> Attempt:
    name = "pidfd_getfd on each descriptor, then mmap"
    try:
        pidfd = os.pidfd_open(pid)
        numbers = [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError as error:
        return Attempt(name, REFUSED, common.why(error))
    hits = size = taken = mapped = 0
    last = "no descriptor is open"
    for number in numbers:
        try:
            ours = take(pidfd, number)
        except OSError as error:
            last = common.why(error)
            continue
        taken += 1
        try:
            found, more = count(ours, marker)
            hits, size, mapped = hits + found, size + more, mapped + 1
        except (OSError, ValueError):
            pass  # a socket, a pipe, an empty file: nothing to map
        finally:
            os.close(ours)
    os.close(pidfd)
    what = f"{taken} of {len(numbers)} descriptors taken, {mapped} mapped, {common.megabytes(size)}"
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times: {what}")
    return Attempt(name, MET, f"marker in none: {what}") if taken else Attempt(name, REFUSED, last)


def by_map_files(pid: int, marker: bytes, elrange: int) -> Attempt:
    name = "/proc/PID/map_files, opened and mapped"
    hits = size = opened = 0
    last = "no data mapping of it has a file"
    for one in common.mappings(pid) if common.alive(pid) else []:
        if one.executable or not one.path.startswith("/") or one.path.endswith(".so"):
            continue
        try:
            descriptor = os.open(f"/proc/{pid}/map_files/{one.start:x}-{one.end:x}", os.O_RDONLY)
        except PermissionError as error:
            if os.geteuid() != 0:
                return Attempt(name, NOT_TRIED, f"root alone may: {common.why(error)}")
            last = common.why(error)
            continue
        except OSError as error:
            last = common.why(error)
            continue
        opened += 1
        try:
            found, more = count(descriptor, marker)
            hits, size = hits + found, size + more
        except (OSError, ValueError) as error:
            last = common.why(error) if isinstance(error, OSError) else str(error)
        finally:
            os.close(descriptor)
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in {common.megabytes(size)} of {opened} files")
    if size:
        return Attempt(name, MET, f"marker not in {common.megabytes(size)} of {opened} files; else: {last}")
    return Attempt(name, REFUSED, last)


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    common.report(by_pidfd(given.pid, given.marker), by_map_files(given.pid, given.marker, given.elrange))
