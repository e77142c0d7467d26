"""The page cache as a quota: counters that the processes of one VM share (`struct epc_shared`, native/include).

A process's library adds to the counters and to its slot; the daemon gives a dead process's slot back. What lies
here was written by guests: every value read is bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
from dataclasses import dataclass

MAGIC = 0x30435045474E5253
SLOT_COUNT = 240
PAGE_SIZE = 4096
_WRITTEN = struct.Struct("<QQQI")  # what the daemon writes of the header
_HEADER = struct.Struct("<QQQII32x")
_SLOT = struct.Struct("<IIQQQQQQQQQ48x")
SIZE = -(-(_HEADER.size + SLOT_COUNT * _SLOT.size) // PAGE_SIZE) * PAGE_SIZE
assert _HEADER.size == 64
assert _SLOT.size == 128
_BOUND = 2**62


@dataclass(frozen=True)
class Usage:
    """What one process did with the EPC, by its own count. Pages of 4096 bytes; ``seconds`` went into paging."""

    used: int
    peak: int
    """Most pages in the EPC at once."""
    demand: int
    """Most pages that existed at once: an EPC of that size holds it without paging."""
    evicted: int
    loaded: int
    seconds: float
    refused: int = 0
    """Times that no page could be had: nothing to evict, or no room for what is evicted."""


class EpcFull(Exception):
    """All SLOT_COUNT process slots of the VM are taken."""


class Epc:
    """The counters of one VM. ``descriptor`` is handed to processes; its size is sealed."""

    def __init__(self, total_pages: int, backing_pages: int | None = None) -> None:
        """``backing_pages``: room for evicted pages, the VM's memory; None: as much as sixteen times the EPC."""
        self.total_pages = total_pages
        self.backing_pages = 16 * total_pages if backing_pages is None else backing_pages
        self.descriptor = os.memfd_create("strongroom-epc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, SIZE)
        # Without these a guest could shrink the file and the daemon would die of SIGBUS.
        fcntl.fcntl(
            self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        self._map = mmap.mmap(self.descriptor, SIZE)
        self._taken: set[int] = set()
        self._lock = threading.Lock()
        self._write_header()

    def take_slot(self) -> int:
        """A free slot's index. Raises EpcFull."""
        with self._lock:
            for slot in range(SLOT_COUNT):
                if slot not in self._taken:
                    self._clear(slot)
                    self._taken.add(slot)
                    self._write_header()
                    return slot
        raise EpcFull

    def give_back(self, slot: int) -> None:
        """Give a dead process's slot and pages back."""
        with self._lock:
            if slot in self._taken:
                self._clear(slot)
                self._taken.discard(slot)
                self._write_header()

    def used_pages(self) -> int:
        """Pages in use by the counters, never above the total."""
        with self._lock:
            return min(sum(self.usage(slot).used for slot in self._taken), self.total_pages)

    def usage(self, slot: int) -> Usage:
        """What the process in ``slot`` did so far."""
        at = _HEADER.size + slot * _SLOT.size
        words = _SLOT.unpack(self._map[at : at + _SLOT.size])
        _, _, used, peak, _, demand, _, evicted, loaded, spent, refused = (
            min(word, _BOUND) for word in words
        )
        used, peak = min(used, self.total_pages), min(peak, self.total_pages)
        return Usage(used, peak, demand, evicted, loaded, spent / 1e9, refused)

    def processes(self) -> int:
        """How many slots are taken."""
        with self._lock:
            return len(self._taken)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def _write_header(self) -> None:
        """Each time that who is in it changes: a guest may have scribbled on it."""
        beyond = max(self._taken, default=-1) + 1
        self._map[: _WRITTEN.size] = _WRITTEN.pack(MAGIC, self.total_pages, self.backing_pages, beyond)

    def _clear(self, slot: int) -> None:
        at = _HEADER.size + slot * _SLOT.size
        self._map[at : at + _SLOT.size] = bytes(_SLOT.size)
