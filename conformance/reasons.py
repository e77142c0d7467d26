"""Why a case differs, where that is known. What matches nothing is shown as it failed."""

from __future__ import annotations

from fnmatch import fnmatchcase

FOUND = "looks for a library by running gcc and ldconfig as it is imported: refused"
# (module, pattern of the case's name, reason)
REASONS = (
    ("test_ctypes", "*test_load*", FOUND),
    ("test_ctypes", "*Test_OpenGL_libs*", FOUND),
    ("test_mmap", "*LargeMmapTests.test_around_*", "maps 2 and 4 GiB: an enclave has the memory of its manifest"),
    ("test_zipfile", "*PyZipFileTests.test_write_*", "writes into the installed library: trusted files are read-only"),
    ("numpy/_core/tests/test_multiarray.py", "*test_huge_*", "wants 18 GB: an enclave has the memory of its manifest"),
    ("test_time", "*test_monotonic_settime", "sets the machine's clock, which is the host's"),
)  # fmt: skip


def reason_of(module: str, case: str) -> str:
    """Empty where none is known."""
    for name, pattern, text in REASONS:
        if name == module and fnmatchcase(case, pattern):
            return text
    return ""
