"""perf and eBPF by their system calls, without libraries: what the tracing attack is made of.

Numbers are of include/uapi/linux/{perf_event,bpf}.h, x86-64. Every function raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from pathlib import Path

PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK = 1, 0
PERF_SAMPLE_STACK_USER, PERF_SAMPLE_REGS_USER = 1 << 13, 1 << 12
PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE, PERF_EVENT_IOC_SET_BPF = 0x2400, 0x2401, 0x40042408
PERF_FLAG_FD_CLOEXEC = 8
NR_PERF_EVENT_OPEN, NR_BPF = 298, 321
BPF_MAP_CREATE, BPF_MAP_LOOKUP, BPF_MAP_UPDATE, BPF_PROG_LOAD = 0, 1, 2, 5
MAP_ARRAY, PROG_KPROBE, PROG_PERF_EVENT = 2, 2, 7
HELPER_MAP_LOOKUP, HELPER_PROBE_READ_USER = 1, 112
STEP, STEPS = 4096, 16
BLOCK = STEP * STEPS
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(number: int, *words: object) -> int:
    done: int = libc.syscall(ctypes.c_long(number), *words)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


# ---- perf ----


def event(
    pid: int,
    kind: int = PERF_TYPE_SOFTWARE,
    config: int = PERF_COUNT_SW_CPU_CLOCK,
    period: int = 0,
    stack_bytes: int = 0,
    config1: int = 0,
    config2: int = 0,
) -> int:
    """A descriptor of an event on one thread, not yet enabled. ``stack_bytes``: sample its user stack."""
    sample = PERF_SAMPLE_STACK_USER | PERF_SAMPLE_REGS_USER if stack_bytes else 0
    disabled, exclude_kernel = 1, 1 << 5
    flags = disabled | (exclude_kernel if stack_bytes else 0)
    registers = 0xFF0FFF if stack_bytes else 0  # PERF_REG_X86_AX..GS without DS and ES, R8..R15
    attr = struct.pack(
        "<IIQQQQQIIQQQQIiQI", kind, 112, config, period, sample, 0, flags, 1, 0, config1, config2,
        0, registers, stack_bytes, 0, 0, 0,
    ).ljust(112, b"\0")  # fmt: skip
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return call(NR_PERF_EVENT_OPEN, buffer, pid, -1, -1, ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC))


def enable(descriptor: int) -> None:
    fcntl.ioctl(descriptor, PERF_EVENT_IOC_ENABLE, 0)


class Ring:
    """The event's ring buffer: what was sampled, as raw bytes."""

    def __init__(self, descriptor: int, pages: int = 512) -> None:
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(descriptor, self._size + mmap.PAGESIZE)
        self._tail = 0

    def read(self) -> bytes:
        """All that came since the last time."""
        (head,) = struct.unpack_from("<Q", self._map, 1024)  # data_head of struct perf_event_mmap_page
        start, end = self._tail % self._size, head % self._size
        data = self._map[mmap.PAGESIZE :]
        taken = data[start:end] if start <= end else data[start:] + data[:end]
        self._tail = head
        struct.pack_into("<Q", self._map, 1032, head)
        return taken


def uprobe_type() -> int:
    """The dynamic type of perf's uprobe events. Raises OSError."""
    return int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())


def uprobe(pid: int, path: str, offset: int) -> int:
    """An event at each execution of the instruction at ``offset`` of the file, by that process."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return event(pid, kind=uprobe_type(), config=0, config1=ctypes.addressof(name), config2=offset)


# ---- eBPF ----


def bpf(command: int, layout: str, *words: int) -> int:
    attr = struct.pack(layout, *words).ljust(144, b"\0")
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return call(NR_BPF, command, buffer, len(attr))


def array(value_bytes: int, count: int) -> int:
    """A map of ``count`` values."""
    return bpf(BPF_MAP_CREATE, "<IIII", MAP_ARRAY, 4, value_bytes, count)


def put(map_: int, index: int, value: bytes) -> None:
    key, data = struct.pack("<I", index), ctypes.create_string_buffer(value, len(value))
    place = ctypes.create_string_buffer(key, 4)
    bpf(BPF_MAP_UPDATE, "<IIQQQ", map_, 0, ctypes.addressof(place), ctypes.addressof(data), 0)


def get(map_: int, index: int, value_bytes: int) -> bytes:
    key, data = struct.pack("<I", index), ctypes.create_string_buffer(value_bytes)
    place = ctypes.create_string_buffer(key, 4)
    bpf(BPF_MAP_LOOKUP, "<IIQQQ", map_, 0, ctypes.addressof(place), ctypes.addressof(data), 0)
    return data.raw


def _insn(code: int, to: int = 0, from_: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, to | from_ << 4, offset, value)


def _load_map(register: int, descriptor: int) -> bytes:
    return _insn(0x18, register, 1, 0, descriptor) + _insn(0)


def reader(kind: int, counter: int, places: int, blocks: int, count: int) -> int:
    """A program that, each time it runs, copies the next of ``places`` from the memory of who runs into ``blocks``.

    ``counter``: one u64, the next index. ``places``: u64 addresses. ``blocks``: BLOCK bytes each.
    """
    lookup = _insn(0x85, value=HELPER_MAP_LOOKUP)
    key = _insn(0xBF, 2, 10) + _insn(0x07, 2, value=-4)  # r2 = fp - 4
    out = b"".join(
        (
            _insn(0x62, 10, 0, -4, 0),  # key = 0
            _load_map(1, counter) + key + lookup,
            _insn(0x15, 0, 0, 1, 0) + _insn(0x05, 0, 0, 2, 0),  # null: exit, else over it
            _insn(0xB7, 0, value=0) + _insn(0x95),
            _insn(0x79, 6, 0),  # r6 = *r0
            _insn(0xB5, 6, 0, 2, count - 1),  # r6 <= count - 1: go on
            _insn(0xB7, 0, value=0) + _insn(0x95),
            _insn(0xBF, 1, 6) + _insn(0x07, 1, value=1) + _insn(0x7B, 0, 1),  # *r0 = r6 + 1
            _insn(0x63, 10, 6, -4),  # key = r6
            _load_map(1, places) + key + lookup,
            _insn(0x55, 0, 0, 2, 0) + _insn(0xB7, 0, value=0) + _insn(0x95),
            _insn(0x79, 7, 0),  # r7 = address
            _load_map(1, blocks) + key + lookup,
            _insn(0x55, 0, 0, 2, 0) + _insn(0xB7, 0, value=0) + _insn(0x95),
            _insn(0xBF, 8, 0),  # r8 = block
        )
    )
    for step in range(STEPS):
        out += _insn(0xBF, 1, 8) + _insn(0x07, 1, value=step * STEP) + _insn(0xB7, 2, value=STEP)
        out += (
            _insn(0xBF, 3, 7) + _insn(0x07, 3, value=step * STEP) + _insn(0x85, value=HELPER_PROBE_READ_USER)
        )
    out += _insn(0xB7, 0, value=0) + _insn(0x95)
    code, licence = ctypes.create_string_buffer(out, len(out)), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    words = (
        kind,
        len(out) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        1,
        len(log),
        ctypes.addressof(log),
    )
    try:
        return bpf(BPF_PROG_LOAD, "<IIQQIIQ", *words)
    except OSError as error:
        said = log.value.decode(errors="replace").strip().splitlines()
        raise OSError(error.errno, f"{error.strerror}: {said[-1]}" if said else error.strerror) from error
