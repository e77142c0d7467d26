"""Every file, socket, pipe and memory map of the processes around the enclave: are values known to be inside there?

Searched for the marker as it is and in hex: the process that holds it, those that started it, the daemon, and the
platform's folder. Sockets are peeked at, pipes copied by tee(2); nothing is taken out of them.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
from pathlib import Path

import common
from common import GOT, MET, REFUSED, Attempt
from descriptors import take
from memory import CHUNK

MOST = 64 << 20
"""Of one file."""
libc = ctypes.CDLL(None, use_errno=True)
libc.tee.restype = ctypes.c_ssize_t


def ours() -> set[int]:
    """This process and those that started it: they know the marker, for they look for it."""
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        pid = parent(pid)
    return found


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def around(pid: int) -> list[int]:
    """The process, those it descends from, and what descends from them: up to the daemon."""
    line = [pid]
    while (up := parent(line[-1])) > 1 and up not in ours():
        line.append(up)
    parents = {
        int(entry.name): parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    }
    family = set(line)
    while more := {child for child, up in parents.items() if up in family} - family:
        family |= more
    return sorted(family - ours())


class Tally:
    """What was searched and found."""

    def __init__(self, name: str, marker: bytes) -> None:
        self.name, self.words = name, (marker, marker.hex().encode())
        self.hits = self.size = self.refused = self.things = 0
        self.where: list[str] = []
        self.last = ""

    def look(self, data: bytes, where: str) -> None:
        found = sum(data.count(word) for word in self.words)
        self.size += len(data)
        if found:
            self.hits += found
            if where not in self.where:
                self.where.append(where)

    def attempt(self, unit: str) -> Attempt:
        text = f"{self.things} {unit}, {common.megabytes(self.size)}"
        if self.hits:
            return Attempt(
                self.name, GOT, f"{self.hits} times, in {', '.join(self.where[:4])}; searched: {text}"
            )
        if self.refused:
            return Attempt(
                self.name, REFUSED, f"in none: {text}; {common.megabytes(self.refused)} refused: {self.last}"
            )
        return Attempt(self.name, MET, f"in none: {text}")


def maps(pids: list[int], marker: bytes) -> Attempt:
    tally = Tally("memory maps of the VM's processes and the daemon", marker)
    for pid in pids:
        try:
            where = common.of_interest(pid, 1, executable=False) + [
                one for one in common.mappings(pid) if one.readable and not one.path.startswith("[v")
            ]
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except OSError as error:
            tally.last = common.why(error)
            continue
        tally.things += 1
        for start, end in sorted({(one.start, one.end) for one in where}):
            tail = b""
            for at in range(start, end, CHUNK):
                try:
                    block = os.pread(memory, min(CHUNK, end - at), at)
                except OSError as error:
                    tally.refused, tally.last, tail = tally.refused + CHUNK, common.why(error), b""
                    continue
                tally.look(tail + block, f"memory of {name_of(pid)}")
                tail = block[-2 * len(marker) :]
        os.close(memory)
    return tally.attempt("processes")


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return f"process {pid}"


def files(pids: list[int], marker: bytes, home: Path | None) -> Attempt:
    tally = Tally("open files, and the platform's folder", marker)
    paths: dict[tuple[int, int], Path] = {}
    for pid in pids:
        try:
            entries = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError as error:
            tally.refused, tally.last = tally.refused + 1, common.why(error)
            continue
        for entry in entries:
            try:
                facts = entry.stat()
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode):
                paths[facts.st_dev, facts.st_ino] = entry
    for entry in home.rglob("*") if home is not None else []:
        if entry.is_file() and not entry.is_symlink():
            facts = entry.stat()
            paths.setdefault((facts.st_dev, facts.st_ino), entry)
    for path in paths.values():
        try:
            with path.open("rb") as file:
                tally.look(file.read(MOST), str(path))
        except OSError as error:
            tally.last = common.why(error)
            continue
        tally.things += 1
    return tally.attempt("files")


def channels(pids: list[int], marker: bytes) -> Attempt:
    """What lies in sockets and pipes at this moment."""
    tally = Tally("sockets and pipes, what lies in them", marker)
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
            numbers = [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError as error:
            tally.last = common.why(error)
            continue
        for number in numbers:
            try:
                descriptor = take(pidfd, number)
            except OSError as error:
                tally.last = common.why(error)
                continue
            try:
                mode = os.fstat(descriptor).st_mode
                if stat.S_ISSOCK(mode):
                    with socket.socket(fileno=os.dup(descriptor)) as one:
                        tally.look(
                            one.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT),
                            f"a socket of {name_of(pid)}",
                        )
                elif stat.S_ISFIFO(mode):
                    tally.look(teed(descriptor), f"a pipe of {name_of(pid)}")
                else:
                    continue
                tally.things += 1
            except OSError:
                tally.things += 1  # empty, or not for reading
            finally:
                os.close(descriptor)
        os.close(pidfd)
    return tally.attempt("sockets and pipes")


def teed(descriptor: int) -> bytes:
    """What lies in a pipe, left in it."""
    ours_read, ours_write = os.pipe()
    try:
        n = libc.tee(descriptor, ours_write, ctypes.c_size_t(65536), 2)  # SPLICE_F_NONBLOCK
        return os.read(ours_read, n) if n > 0 else b""
    finally:
        os.close(ours_read)
        os.close(ours_write)


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    found = around(given.pid)
    common.report(
        maps(found, given.marker), files(found, given.marker, given.home), channels(found, given.marker)
    )
