"""What is run: CPython's regression tests by module, and the part of numpy's own core tests that is sampled."""

from __future__ import annotations

_NAMES = """
test_array base64 binascii bisect bytes bz2 collections configparser contextlib copy coroutines csv ctypes datetime
decimal dict dis enum epoll exceptions fileio float fractions functools gc generators glob hashlib heapq hmac int io
itertools json list logging lzma marshal math memoryview mmap os pathlib pickle poll posix queue random re secrets
select selectors set shelve shutil signal socket socketserver sqlite3 ssl statistics struct tarfile tempfile thread
threading time typing unicode urllib uuid weakref xml_etree zipfile zlib asyncio
"""
PYTHON = tuple(name if name.startswith("test_") else f"test_{name}" for name in _NAMES.split())
# Quick ones, alike for root and for others: what a test of ours runs.
SAMPLE = ("test_array", "test_epoll", "test_fileio", "test_glob", "test_memoryview")
# Paths in numpy's package; every NUMPY_STRIDE-th case, in the order of collection.
NUMPY = (
    "numpy/_core/tests/test_umath.py", "numpy/_core/tests/test_multiarray.py", "numpy/_core/tests/test_numeric.py",
    "numpy/_core/tests/test_ufunc.py", "numpy/_core/tests/test_dtype.py", "numpy/linalg/tests/test_linalg.py",
    "numpy/random/tests/test_generator_mt19937.py", "numpy/fft/tests/test_pocketfft.py",
)  # fmt: skip
NUMPY_STRIDE = 5
assert len(PYTHON) == 76


def timeout_of(name: str) -> int:
    """Seconds after which a module is stopped."""
    return (
        1200 if name in ("test_asyncio", "test_decimal", "test_io", "test_socket", "test_threading") else 600
    )
