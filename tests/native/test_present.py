"""Which pages of ELRANGE exist, beside a set; and what walks the largest ELRANGE, which is nearly all of no pages."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_machine import Machine
from steps import steps

NATIVE = Path(__file__).parents[2] / "native"
PAGE = 0x1000


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """present.c with a table of its own. The library's symbols are hidden; here they are what is tested."""
    out = tmp_path_factory.mktemp("present") / "present.so"
    source = out.with_suffix(".c")
    source.write_text(
        f'#include "{NATIVE}/device/present.c"\n'
        '#define SHOWN __attribute__((visibility("default")))\n'
        "static struct enclave e; static uint64_t table[1 << 16];\n"
        "SHOWN uint64_t start(uint64_t pages) { e.secs.size = pages * SGX_PAGE_SIZE; present_start(&e, table, pages);"
        " __builtin_memset(table, 0, sizeof table); return present_size(pages); }\n"
        "SHOWN void set(uint64_t page) { present_set(&e, page); }\n"
        "SHOWN void clear(uint64_t page) { present_clear(&e, page); }\n"
        "SHOWN uint64_t next(uint64_t page, uint64_t end) { return present_next(&e, page, end); }\n"
    )
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{NATIVE}/include"]
    subprocess.run(["gcc", *flags, "-o", str(out), str(source)], check=True)
    library = ctypes.CDLL(str(out))
    for name in ("start", "set", "clear", "next"):
        getattr(library, name).argtypes = [ctypes.c_uint64] * (2 if name == "next" else 1)
        getattr(library, name).restype = ctypes.c_uint64
    return library


@given(
    bits=st.integers(1, 20),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 2**20 - 1)), max_size=60),
    ranges=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)), max_size=20),
)
def test_the_next_page_is_the_next_of_the_set(
    present: ctypes.CDLL, bits: int, changes: list[tuple[bool, int]], ranges: list[tuple[int, int]]
) -> None:
    pages, model = 1 << bits, set[int]()
    assert present.start(pages) <= max(pages // 4, 32), "less than a thirtieth of the EPCM"
    for add, page in changes:
        page %= pages
        if add:
            model.add(page)
            present.set(page)
        elif page in model:
            model.remove(page)
            present.clear(page)
    for start, end in [*ranges, (0, pages)]:
        start, end = start % pages, end % (pages + 1)
        expected = min((page for page in model if start <= page < end), default=end)
        assert present.next(start, end) == expected


def test_the_largest_range_is_walked_by_its_pages(machine: Machine) -> None:
    """2^45 bytes (half of what SECS may say: the program lies in the rest) and three pages. Page by page, the first
    mmap took 38 s under the lock that reclaiming needs; the bound is generous."""
    size = 1 << 45
    whole = f"10000 {size - 0x10000:x}"
    said = steps(
        machine,
        f"secs 0 8 {size:x}", "open 2", "create",
        "add 100000 1000 1", f"add {size - PAGE:x} 1000 1", "info 0 205", "add 200000 1000 1", "clock",
        f"map {whole} 3 11", f"map {whole} 1 11", f"protect {whole} 0", f"protect {whole} 3", f"protect {whole} 1",
        f"map {whole} 5 11", "peek 100000", "peek 200000", f"peek {size - PAGE:x}", f"unmap {whole}", "close", "clock",
    )  # fmt: skip
    milliseconds = int(said.pop())
    ones = "0x" + "f" * 16
    assert said[:2] == ["0"] * 2 and said[6:] == [
        "EACCES", "0", "0", "EACCES", "0", "EACCES", ones, ones, ones, "0", "0",
    ]  # fmt: skip
    assert milliseconds < 2000
