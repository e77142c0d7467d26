"""A value that exists only in this process: made here from a seed, kept in memory, never given out."""

from __future__ import annotations

import hashlib

_kept: list[bytearray] = []


def _make(seed: bytes) -> bytearray:
    return bytearray(hashlib.sha256(b"strongroom attack marker" + seed).digest())


def hold(seed: bytes) -> bytes:
    """Keep the marker; returns the SHA-256 of the marker, which proves that it is held and does not show it."""
    _kept[:] = [_make(seed)]
    return hashlib.sha256(_kept[0]).digest()


def intact(seed: bytes) -> bool:
    """Whether the marker kept is the one that was made. (Made anew a byte at a time elsewhere, then forgotten.)"""
    fresh = _make(seed)
    same = bool(_kept) and _kept[0] == fresh
    fresh[:] = bytes(len(fresh))
    return same


def use(seconds: float) -> int:
    """Compute with the marker as a key for so long, as a program does that works; returns how often."""
    import hmac
    import os
    import time

    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hmac.digest(bytes(_kept[0]), b"message", "sha256")
        os.sched_yield()  # a call of the host's now and then, as programs make them
        count += 1
    return count


def place() -> tuple[int, int]:
    """Address and size of the marker kept, for the control."""
    import ctypes

    kept = _kept[0]
    return ctypes.addressof(ctypes.c_char.from_buffer(kept)), len(kept)
