"""The LibOS's clock beside a simulated host and counter: how far off, how often it asks, and hosts that lie."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

LIBOS = Path(__file__).parents[2] / "libos"
REALTIME, MONOTONIC = 0, 1
START = 1_000_000_000_000
HARNESS = r"""
#include "libos.h"
/* One time line in ns; the counter runs at `ghz`, a question takes `question` ns, the host reads in its middle. */
u64 line, question, asked; double ghz; bool faults; long offset[12]; bool silly;
static u8 data[64];
u64 libos_rdtsc(void) { return faults ? 0 : (u64)((double)line * ghz) + 1; }
u8 *ocall_data(void) { return data; }
u64 host_data_address(void) { return (u64)data; }
long host_syscall(u64 nr, u64 clock, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    (void)nr, (void)b, (void)c, (void)d, (void)e, (void)f;
    asked++;
    line += question / 2;
    u64 now = line + (u64)offset[clock];
    ((u64 *)data)[0] = silly ? ~0ull : now / 1000000000;
    ((u64 *)data)[1] = silly ? ~0ull : now % 1000000000;
    line += question / 2;
    return 0;
}
"""


class Clock:
    """clock.c with a host of its own."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.now_ns.restype = ctypes.c_uint64
        self.whole("question").value = 10_000
        self.whole("line").value = START
        ctypes.c_double.in_dll(library, "ghz").value = 2.6

    def whole(self, name: str) -> ctypes.c_uint64:
        return ctypes.c_uint64.in_dll(self.library, name)

    def fault(self) -> None:
        ctypes.c_bool.in_dll(self.library, "faults").value = True

    def offset(self, clock: int, ns: int) -> None:
        (ctypes.c_long * 12).in_dll(self.library, "offset")[clock] = ns

    def after(self, ns: int, clock: int = MONOTONIC) -> int:
        self.whole("line").value += ns
        return int(self.library.now_ns(clock))

    @property
    def line(self) -> int:
        return self.whole("line").value

    @property
    def asked(self) -> int:
        return self.whole("asked").value


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "harness.c").write_text(HARNESS)
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-ffreestanding", f"-I{LIBOS}/include"]
    out = folder / "clock.so"
    subprocess.run(
        ["gcc", *flags, "-o", out, LIBOS / "sys" / "clock.c", folder / "harness.c"], check=True, timeout=60
    )
    return out


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> Clock:
    own = tmp_path / "own.so"  # a copy: another file is another set of variables
    shutil.copy(library, own)
    return Clock(ctypes.CDLL(str(own)))


def test_it_counts_and_hardly_asks(clock: Clock) -> None:
    """A day of questions, 100 µs to 7 ms apart for a minute, then a second apart: never off by more than a question."""
    worst = 0
    for number in range(20_000):
        told = clock.after(100_000 + number % 7 * 1_000_000)
        worst = max(worst, abs(told - clock.line))
    assert worst <= 10_000
    assert clock.asked < 200
    for _ in range(10_000):
        told = clock.after(900_000_000)
        assert abs(told - clock.line) <= 10_000


def test_before_its_rate_is_known_it_asks(clock: Clock) -> None:
    for number in range(1, 10):
        assert clock.line - clock.after(20_000) <= 10_000
        assert clock.asked == number


def test_a_counter_that_faults_is_not_used(clock: Clock) -> None:
    clock.fault()
    for number in range(1, 100):
        assert clock.line - clock.after(50_000_000) <= 5_000
        assert clock.asked == number


def test_the_real_time_can_be_set_forwards(clock: Clock) -> None:
    for _ in range(100):
        clock.after(10_000_000, REALTIME)
    clock.offset(REALTIME, 3600 * 10**9)
    told = [clock.after(400_000_000, REALTIME) for _ in range(5)]
    assert told[-1] - clock.line == pytest.approx(3600 * 10**9, abs=20_000)
    assert abs(clock.after(1_000_000) - clock.line) <= 10_000  # the other clock is not led astray


def test_a_clock_that_is_set_back_stands_still(clock: Clock) -> None:
    before = [clock.after(10_000_000, REALTIME) for _ in range(100)][-1]
    clock.offset(REALTIME, -3600 * 10**9)
    told = [clock.after(2_000_000_000, REALTIME) for _ in range(5)]
    assert told == sorted(told)
    assert told[-1] >= before
    assert told[-1] - told[-2] == 0


def test_one_slow_question_does_not_spoil_the_rate(clock: Clock) -> None:
    clock.after(0)
    clock.whole("question").value = 40_000_000  # the thread was not scheduled for a while
    clock.after(2_000_000)
    clock.whole("question").value = 10_000
    for _ in range(1000):
        told = clock.after(5_000_000)
        assert abs(told - clock.line) <= 40_000_000
    assert abs(told - clock.line) <= 50_000


def test_nonsense_is_not_believed(clock: Clock) -> None:
    before = clock.after(10_000_000)
    ctypes.c_bool.in_dll(clock.library, "silly").value = True
    for _ in range(10):
        told = clock.after(3_000_000_000)
        assert told >= before


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2_000_000_000), st.integers(-(10**12), 10**12), st.integers(0, 10**8)),
        max_size=60,
    )
)
def test_no_host_makes_it_run_backwards(library: Path, steps: list[tuple[int, int, int]]) -> None:
    """The variables stay from example to example: so does what a hostile host did before."""
    clock = Clock(ctypes.CDLL(str(library)))
    last = clock.after(0)
    for ns, lie, question in steps:
        clock.offset(MONOTONIC, lie)
        clock.whole("question").value = question
        told = clock.after(ns)
        assert told >= last
        last = told
