"""What is written to disk of a process: core dumps and logs at a crash, swap, hibernation.

The process is made to crash at the end; nothing else of the machine is changed for longer than the attack (a swap file
of this program's own).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import common
from common import GOT, MET, NOT_TRIED, REFUSED, Attempt

NR_PROCESS_MADVISE, MADV_PAGEOUT = 440, 21
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def failed() -> OSError:
    return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# ---- swap ----


def facts(pid: int, elrange: int) -> str:
    """What /proc/PID/smaps says of the data's mappings: locked or secret memory is not swapped."""
    sizes: dict[str, int] = {}
    wanted = {one.start for one in common.of_interest(pid, elrange, executable=False) if elrange}
    here, size, kind = False, 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and ":" not in words[0]:
            here = int(words[0].split("-")[0], 16) in wanted
            kind = "secret" if line.endswith(("/secretmem", "/secretmem (deleted)")) else "ordinary"
        elif here and words[0] == "Rss:":
            size = int(words[1]) << 10
        elif here and words[0] == "VmFlags:":
            kind += " locked" if "lo" in words else ""
            sizes[kind] = sizes.get(kind, 0) + size
    return ", ".join(f"{common.megabytes(n)} {k}" for k, n in sorted(sizes.items()) if n)


def page_out(pid: int, elrange: int) -> int:
    """Ask the kernel to swap out all data; bytes that it accepted. Raises OSError where it took none."""
    pidfd = os.pidfd_open(pid)
    done = 0
    error: OSError | None = None
    for one in common.of_interest(pid, elrange, executable=False):
        vector = Iovec(one.start, one.end - one.start)
        n = libc.syscall(NR_PROCESS_MADVISE, pidfd, ctypes.byref(vector), ctypes.c_ulong(1), MADV_PAGEOUT, 0)
        if n > 0:
            done += n
        else:
            error = failed()
    os.close(pidfd)
    if not done and error is not None:
        raise error
    return done


def swap(pid: int, marker: bytes, elrange: int, scratch: Path) -> Attempt:
    """A swap file of our own, all data paged out to it, the file searched."""
    name = "swap: all data paged out to a swap file"
    file = scratch / "swap"
    on = False
    try:
        if libc.swapon(b"", 0) < 0 and (refusal := failed()).errno == errno.EPERM:
            return Attempt(name, NOT_TRIED, f"root alone may add swap: {common.why(refusal)}")
        mkswap = shutil.which("mkswap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if not mkswap:
            return Attempt(name, NOT_TRIED, "mkswap is not installed: apt-get install util-linux")
        said = facts(pid, elrange)
        size = sum(one.end - one.start for one in common.of_interest(pid, elrange, executable=False))
        with file.open(
            "wb"
        ) as stream:  # written, not only allocated: unwritten blocks read as zero whatever is in them
            for _ in range(size // (1 << 20) + 8):
                stream.write(bytes(1 << 20))
            os.fsync(stream.fileno())
        os.chmod(file, 0o600)
        subprocess.run([mkswap, str(file)], capture_output=True, check=True)
        if libc.swapon(os.fsencode(file), 0x8000 | 0x7FFF) < 0:  # the highest priority
            return Attempt(name, NOT_TRIED, f"swapon: {common.why(failed())}")
        on = True
        took = page_out(pid, elrange)
        deadline = time.monotonic() + 2
        hits = 0
        while not hits and time.monotonic() < deadline:
            time.sleep(0.1)
            subprocess.run(["sync", str(file)], check=False)
            hits = raw(file, marker)
    except subprocess.CalledProcessError as error:
        return Attempt(name, NOT_TRIED, f"mkswap ended with status {error.returncode}")
    except OSError as error:
        what = NOT_TRIED if error.errno == 1 and os.geteuid() else REFUSED
        return Attempt(name, what, common.why(error))
    finally:
        if on:
            libc.swapoff(os.fsencode(file))
        common.remove(file)
    about = f" (data: {said})" if said else ""
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in the swap file{about}")
    return Attempt(name, MET, f"marker not in the swap file, of {common.megabytes(took)} asked for{about}")


def raw(file: Path, marker: bytes) -> int:
    """Occurrences in the file as it is on the disk: the kernel writes swap around the page cache."""
    hits, tail = 0, b""
    descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        import mmap

        with mmap.mmap(-1, 1 << 20) as block:
            while (n := os.readv(descriptor, [block])) > 0:
                data = tail + block[:n]
                hits += data.count(marker)
                tail = data[-len(marker) + 1 :]
    finally:
        os.close(descriptor)
    return hits


def hibernation() -> Attempt:
    name = "hibernation image"
    try:
        states = Path("/sys/power/state").read_text().split()
    except OSError:
        states = []
    if "disk" not in states:
        return Attempt(
            name, NOT_TRIED, "/sys/power/state does not offer disk; tried in a guest: docs/threat-model.md"
        )
    return Attempt(name, NOT_TRIED, "the machine would stop; tried in a guest: docs/threat-model.md")


# ---- crash ----


def logs(pid: int, home: Path | None) -> Iterator[Path]:
    """Where a crash may leave something: the process's folder, the platform's logs, the system's."""
    yield from (
        Path(p) for p in ("/var/log/kern.log", "/var/log/syslog", "/var/log/messages", "/var/log/apport.log")
    )
    yield from Path("/var/crash").glob("*")
    yield from Path("/var/lib/systemd/coredump").glob("*")
    if home is not None:
        yield from home.glob("*.log")


def kernel_log() -> bytes:
    """The kernel's ring buffer, as root reads it."""
    size = 1 << 20
    buffer = ctypes.create_string_buffer(size)
    n = libc.klogctl(3, buffer, size)
    return buffer.raw[: max(n, 0)]


def crash(pid: int, marker: bytes, scratch: Path, home: Path | None) -> Attempt:
    """Core size unlimited, SIGABRT from outside; then core file and logs are searched."""
    name = "SIGABRT with core size unlimited: core file and logs"
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    limit = ""
    try:
        folder = os.open(f"/proc/{pid}/cwd", os.O_RDONLY | os.O_DIRECTORY)
        before = set(os.listdir(folder))
        try:
            resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except PermissionError as error:  # without CAP_SYS_RESOURCE no higher than its own
            limit = f"its core size may not be raised ({common.why(error)}); "
        os.kill(pid, signal.SIGABRT)
    except OSError as error:
        return Attempt(name, REFUSED, common.why(error))
    if not common.ended_within(pid, 10):
        return Attempt(name, MET, "the process did not end: it has a handler of its own")
    cores = sorted(set(os.listdir(folder)) - before) if not pattern.startswith("|") else []
    hits = size = 0
    for word in cores:
        descriptor = os.open(word, os.O_RDONLY, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as stream:
            (scratch / "core").unlink(missing_ok=True)
            with (scratch / "core").open("wb") as copy:
                shutil.copyfileobj(stream, copy)
        os.unlink(word, dir_fd=folder)
        found, more = common.search_file(scratch / "core", marker)
        hits, size = hits + found, size + more
    os.close(folder)
    in_logs = kernel_log().count(marker) + kernel_log().count(marker.hex().encode())
    for file in logs(pid, home):
        if file.is_file():
            in_logs += (
                common.search_file(file, marker)[0] + common.search_file(file, marker.hex().encode())[0]
            )
    if hits or in_logs:
        return Attempt(
            name,
            GOT,
            f"the marker, {hits} times, in a core file of {common.megabytes(size)}; {in_logs} in logs",
        )
    if cores:
        return Attempt(name, MET, f"marker not in a core file of {common.megabytes(size)}, nor in logs")
    if pattern.startswith("|"):
        return Attempt(
            name, NOT_TRIED, "the system hands core files to a program (core_pattern); none in its folders"
        )
    return Attempt(name, REFUSED, f"{limit}no core file was written; marker in no log")


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    common.report(
        swap(given.pid, given.marker, given.elrange, given.scratch),
        hibernation(),
        crash(given.pid, given.marker, given.scratch, given.home),
    )
