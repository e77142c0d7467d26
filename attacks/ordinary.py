"""The control: an ordinary Python process that does what attacks/target does inside an enclave.

Reads lines from standard input, answers on standard output: `hold SEED` (hex) makes the marker and keeps it,
`intact SEED` says whether it is still what it was, `use` computes with it, `key` makes a key file, as programs keep
one. `load` and `store` do what attacks/intruder.c does: other code in the same process reads and overwrites the marker
where it lies. Like the enclave's pages, the marker lies in memory that has, or had, a descriptor; and it goes where a
program's values go: into a log file, and into a pipe to another process. With --drop it gives up root first.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "target"))

import marker


def hold(seed: bytes) -> bytes:
    """The marker; copies in shared memory, in the log, in the pipe."""
    digest = marker.hold(seed)
    value = ctypes.string_at(*marker.place())
    shared[: len(value)] = value
    log.write(value.hex() + "\n")
    log.flush()
    os.write(pipe[1], value)
    return digest


def drop() -> None:
    """Become nobody, whose other processes may look at this one, as at any that root did not start."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE


if __name__ == "__main__":
    if "--drop" in sys.argv and os.geteuid() == 0:
        drop()
    descriptor = os.memfd_create("ordinary")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    shared = mmap.mmap(descriptor, mmap.PAGESIZE)
    pipe = os.pipe()
    with (
        tempfile.NamedTemporaryFile(prefix="ordinary-key-", delete=False) as keys,
        tempfile.TemporaryFile("w") as log,
    ):
        os.unlink(keys.name)  # open it is found all the same, and a kill leaves nothing behind
        for line in sys.stdin:
            verb, _, word = line.strip().partition(" ")
            seed = bytes.fromhex(word)
            if verb == "hold":
                print(hold(seed).hex(), flush=True)
            elif verb == "intact":
                print("yes" if marker.intact(seed) else "no", flush=True)
            elif verb == "use":
                print(marker.use(0.5), flush=True)
            elif verb == "key":
                os.pwrite(keys.fileno(), os.urandom(16), 0)
                print(hashlib.sha256(os.pread(keys.fileno(), 16, 0)).hexdigest(), flush=True)
            elif verb in ("load", "store"):
                address, size = marker.place()
                if verb == "store":
                    ctypes.memset(address, 0x4A, size)
                print(ctypes.string_at(address, size).hex(), flush=True)
