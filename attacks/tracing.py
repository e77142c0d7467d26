"""The kernel's own tracing, by the host's root: perf samples the user stack, an eBPF program reads memory.

The program runs at each sample of the target's thread, or at a uprobe in its loader, and copies the target's memory
from within the kernel, by the target's own page tables: no ptrace, no /proc/PID/mem. Software cannot keep it out.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import common
import kernel
from common import GOT, MET, NOT_TRIED, REFUSED, Attempt

SECONDS = 4.0
STACK = 16384
NONE = "this kernel has none"
ABSENT = {1: "not permitted: root alone may", 2: NONE, 38: NONE, 95: NONE}


def off(name: str, error: OSError) -> Attempt:
    """The means is not to be had: nothing was tried."""
    return Attempt(
        name, NOT_TRIED, f"{ABSENT.get(error.errno or 0, 'the kernel says no')}: {common.why(error)}"
    )


def stack(pid: int, marker: bytes) -> Attempt:
    """The marker is the key that the target computes with meanwhile, so that it is on its stack now and then."""
    name = "perf, samples of the user stack"
    try:
        descriptor = kernel.event(pid, period=100_000, stack_bytes=STACK)
    except OSError as error:
        return off(name, error)
    ring = kernel.Ring(descriptor)
    kernel.enable(descriptor)
    hits = size = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and hits < 10 and common.alive(pid):
        time.sleep(0.05)
        data = ring.read()
        size += len(data)
        hits += data.count(marker)
    os.close(descriptor)
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in {common.megabytes(size)} of samples")
    if not size:
        return Attempt(name, NOT_TRIED, "the target did not run, so nothing was sampled")
    return Attempt(name, MET, f"marker not in {common.megabytes(size)} of samples")


def blocks_of(pid: int, elrange: int) -> list[int]:
    """Where to read: all data, in pieces of what the program copies at a time."""
    return [
        at
        for one in common.of_interest(pid, elrange, executable=False)
        for at in range(one.start, one.end, kernel.BLOCK)
    ]


def memory(name: str, pid: int, marker: bytes, elrange: int, kind: int, opened: int) -> Attempt:
    """Attach the reader to the event ``opened`` and look through what it copied."""
    places = blocks_of(pid, elrange)
    descriptors = [opened]
    try:
        counter, table = kernel.array(8, 1), kernel.array(8, len(places))
        blocks = kernel.array(kernel.BLOCK, len(places))
        descriptors += [counter, table, blocks]
        for index, at in enumerate(places):
            kernel.put(table, index, at.to_bytes(8, "little"))
        program = kernel.reader(kind, counter, table, blocks, len(places))
        descriptors.append(program)
        fcntl.ioctl(opened, kernel.PERF_EVENT_IOC_SET_BPF, program)
        kernel.enable(opened)
        deadline = time.monotonic() + SECONDS
        done = 0
        while time.monotonic() < deadline and done < len(places) and common.alive(pid):
            time.sleep(0.05)
            done = int.from_bytes(kernel.get(counter, 0, 8), "little")
        fcntl.ioctl(opened, kernel.PERF_EVENT_IOC_DISABLE, 0)
        hits, tail = 0, b""
        for index in range(done):
            data = kernel.get(blocks, index, kernel.BLOCK)
            hits += (tail + data).count(marker)
            tail = data[-len(marker) + 1 :]
    except OSError as error:
        return off(name, error)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    size = common.megabytes(done * kernel.BLOCK)
    if hits:
        return Attempt(name, GOT, f"the marker, {hits} times, in {size}")
    if not done:
        return Attempt(name, NOT_TRIED, "the target did not come by, so nothing was read")
    if done < len(places):
        whole = common.megabytes(len(places) * kernel.BLOCK)
        return Attempt(name, NOT_TRIED, f"the target came by too seldom: {size} of {whole} were read")
    return Attempt(name, MET, f"marker not in {size}")


def sampled(pid: int, marker: bytes, elrange: int) -> Attempt:
    name = "eBPF at each perf sample, reads memory"
    try:
        opened = kernel.event(pid, period=200_000)
    except OSError as error:
        return off(name, error)
    return memory(name, pid, marker, elrange, kernel.PROG_PERF_EVENT, opened)


def symbol(file: Path, names: tuple[str, ...]) -> int:
    """Offset in the file of the first of these functions that it has. Raises OSError."""
    from elftools.elf.elffile import ELFFile

    with file.open("rb") as stream:
        elf = ELFFile(stream)
        for table in (".symtab", ".dynsym"):
            section = elf.get_section_by_name(table)
            for name in names if section is not None else ():
                for one in section.get_symbol_by_name(name) or ():
                    for segment in elf.iter_segments("PT_LOAD"):
                        at = one["st_value"] - segment["p_vaddr"]
                        if one["st_shndx"] != "SHN_UNDEF" and 0 <= at < segment["p_filesz"]:
                            return int(segment["p_offset"] + at)
    raise OSError(2, f"no {' or '.join(names)} in {file.name}")


# What the target executes all the time: the loader's own system calls, the interpreter's calls.
PROBED = ("loader_syscall", "PyBytes_FromStringAndSize")


def probed(pid: int, marker: bytes, elrange: int) -> Attempt:
    """A uprobe in a file that the process executes, outside the enclave."""
    name = "a uprobe outside the enclave, its eBPF program reads memory"
    last = OSError(2, "no file of it has a place for a probe")
    try:
        files = {one.path for one in common.mappings(pid) if one.executable and one.path.startswith("/")}
        for path in sorted(files, key=lambda path: "loader" not in path):
            # As the process sees it: the kernel goes by the inode.
            seen = next((p for p in (f"/proc/{pid}/root{path}", path) if os.path.exists(p)), "")
            try:
                offset = symbol(Path(seen), PROBED) if seen else 0
            except OSError as error:
                last = error
                continue
            if offset:
                opened = kernel.uprobe(pid, seen, offset)
                return memory(name, pid, marker, elrange, kernel.PROG_KPROBE, opened)
    except OSError as error:
        last = error
    return off(name, last)


def in_code(pid: int, elrange: int) -> Attempt:
    """A uprobe is a breakpoint that the kernel writes into code: into the enclave's pages as well?"""
    name = "a uprobe in code pages"
    try:
        one = max(common.of_interest(pid, elrange, executable=True), key=lambda m: m.end - m.start)
        offset = int(next(
            line.split()[2] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if line.startswith(f"{one.start:08x}-")
        ), 16)  # fmt: skip
        path = f"/proc/{pid}/map_files/{one.start:x}-{one.end:x}"
        with open(f"/proc/{pid}/mem", "rb") as reader:
            reader.seek(one.start + 64)
            before = reader.read(1)
        opened = kernel.uprobe(pid, path, offset + 64)
        kernel.enable(opened)
        time.sleep(0.05)
        with open(f"/proc/{pid}/mem", "rb") as reader:
            reader.seek(one.start + 64)
            after = reader.read(1)
        os.close(opened)
    except (OSError, ValueError, StopIteration) as error:
        if isinstance(error, OSError) and error.errno in (1, 2, 13, 38):
            return off(name, error)
        return Attempt(name, REFUSED, common.why(error) if isinstance(error, OSError) else str(error))
    if after != before:
        return Attempt(name, GOT, f"a breakpoint stood there ({before.hex()} -> {after.hex()})")
    return Attempt(name, REFUSED, "the kernel wrote no breakpoint: shared mappings take none")


if __name__ == "__main__":
    given = common.arguments(__doc__ or "")
    common.report(
        stack(given.pid, given.marker),
        sampled(given.pid, given.marker, given.elrange),
        probed(given.pid, given.marker, given.elrange),
        in_code(given.pid, given.elrange),
    )
