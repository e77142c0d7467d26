"""The page cache as a quota: counters that the processes of one VM share (`struct epc_shared`, native/include).

A process's library adds to ``used_pages`` and to its slot; the daemon gives a dead process's slot back. What lies
here was written by guests: every value read is bounded.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
import threading

from strongroom.machine.linux import Atomic

MAGIC = 0x30435045474E5253
SLOT_COUNT = 240
SIZE = 4096
PAGE_SIZE = 4096
_HEADER = struct.Struct("<QQQ40x")
_SLOT = struct.Struct("<IIQ")
assert _HEADER.size == 64
assert _SLOT.size == 16
assert _HEADER.size + SLOT_COUNT * _SLOT.size <= SIZE


class EpcFull(Exception):
    """All SLOT_COUNT process slots of the VM are taken."""


class Epc:
    """The counters of one VM. ``descriptor`` is handed to processes; its size is sealed."""

    def __init__(self, total_pages: int) -> None:
        self.total_pages = total_pages
        self.descriptor = os.memfd_create("strongroom-epc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, SIZE)
        # Without these a guest could shrink the file and the daemon would die of SIGBUS.
        fcntl.fcntl(
            self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        self._map = mmap.mmap(self.descriptor, SIZE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._map[: _HEADER.size] = _HEADER.pack(MAGIC, total_pages, 0)
        self._atomic = Atomic()
        self._taken: set[int] = set()
        self._lock = threading.Lock()

    def take_slot(self) -> int:
        """A free slot's index. Raises EpcFull."""
        with self._lock:
            for slot in range(SLOT_COUNT):
                if slot not in self._taken:
                    self._taken.add(slot)
                    self._atomic.exchange(self._slot_used(slot), 0)
                    return slot
        raise EpcFull

    def give_back(self, slot: int) -> int:
        """Give a dead process's slot and pages back; returns the pages."""
        with self._lock:
            if slot not in self._taken:
                return 0
            pages = min(self._atomic.exchange(self._slot_used(slot), 0), self.total_pages)
            if pages:
                self._atomic.add(self._base + 16, -pages)
            self._map[_HEADER.size + slot * 16 : _HEADER.size + slot * 16 + 8] = bytes(8)
            self._taken.discard(slot)
            # A guest may have scribbled on the counter: with nobody left it is zero by definition.
            if not self._taken:
                self._atomic.exchange(self._base + 16, 0)
            return pages

    def used_pages(self) -> int:
        """Pages in use by the counter, never above the total."""
        return min(self._atomic.add(self._base + 16, 0), self.total_pages)

    def processes(self) -> int:
        """How many slots are taken."""
        with self._lock:
            return len(self._taken)

    def resize(self, total_pages: int) -> None:
        """Change the total (the VM is not in use)."""
        self.total_pages = total_pages
        self._atomic.exchange(self._base + 8, total_pages)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def _slot_used(self, slot: int) -> int:
        return self._base + _HEADER.size + slot * _SLOT.size + 8
