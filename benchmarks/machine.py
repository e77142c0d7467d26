"""The machine without a runtime: ECALLs, a trap's price, and what adding and measuring pages costs."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, Scale, Side, interleave
from benchmarks.report import machine as facts_of_machine
from benchmarks.room import HERE, REPOSITORY

sys.path += [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "native")]

import images

from strongroom.image.signer import KeySigner
from support.package_server import PackageServer, package_server

__all__ = ["BUILD", "Bench", "bench", "compile_all", "images", "measure", "package_server", "trap"]
BUILD = REPOSITORY / "build" / "benchmarks"
BARE_TRAP = 1_000
"""ns of such a trap on bare metal, about: what the design goes by. Only for an estimate, which is named one."""
ENTRY_CALLS = 3
"""System calls that native/processor/entry.S and enter_by_call make."""
MEASURED_PAGE = 64 + 16 * (64 + 256)
"""Bytes hashed for one measured page: EADD's record, sixteen of EEXTEND with what they measure."""


@dataclass(frozen=True)
class Bench:
    """The test enclave of tests/native, built and signed, and a package to start programs on."""

    server: PackageServer
    image: Path
    signature: Path

    def run(self, *words: str, options: tuple[str, ...] = ()) -> list[float]:
        """``machine`` with these words: what it printed."""
        done = self.server.run([str(BUILD / "machine"), *words], options)
        if done.returncode:
            raise RuntimeError(f"machine {words}: {done.stderr.decode()}")
        return [float(word) for word in done.stdout.split()]

    def ecall(self, calls: int) -> tuple[float, float]:
        """ns for one ECALL and back, and for one system call of a process with an enclave."""
        whole, system_call = self.run("ecall", str(self.image), str(self.signature), str(calls))
        return whole, system_call

    def add(self, how: str, pages: int) -> tuple[float, float]:
        """µs for one page added, by the clock and of processors' time; backed by ordinary memory: what varies is the
        measuring."""
        wall, work = self.run("add", how, str(pages), options=("--no-secretmem",))
        return wall / 1e3, work / 1e3


def compile_all() -> None:
    images.compile_all()
    subprocess.run(
        ["make", "-s", "-C", str(HERE / "native"), f"BUILD={BUILD}"],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    compile_all()
    image, signature = folder / "enclave.sgxs", folder / "enclave.sig"
    images.sign_image(images.build_image(image), signature, KeySigner.generate())
    with package_server(epc_pages=1 << 16) as server:
        yield Bench(server, image, signature)


def trap(calls: int) -> tuple[float, float]:
    """ns of one trap with a bare handler, and ticks of the time stamp counter a ns."""
    done = subprocess.run(
        [BUILD / "trap", str(calls)], capture_output=True, text=True, check=True, timeout=300
    )
    ns, ticks = done.stdout.split()
    return float(ns), float(ticks)


def ecalls(room: Bench, scale: Scale) -> Figure:
    rates: list[float] = []
    system_calls: list[float] = []

    def whole() -> float:
        ns, one = room.ecall(scale.calls)
        system_calls.append(one)
        return ns

    def bare() -> float:
        ns, ticks = trap(scale.calls)
        rates.append(ticks)
        return ns

    ours, traps = interleave(scale.rounds, whole, bare)
    return ecall_figure(ours, traps, median(system_calls), median(rates), facts_of_machine()["hypervisor"])


def ecall_figure(
    ours: tuple[float, ...], traps: tuple[float, ...], system_call: float, rate: float, hypervisor: bool
) -> Figure:
    """The row from its samples: ns, and ticks of the time stamp counter a ns. The goal is one for bare metal."""
    ecall, trapped = median(ours), median(traps)
    rest = ecall - trapped
    estimate = rest + BARE_TRAP
    return Figure(
        row="ecall",
        unit="ns",
        ours=Side("ECALL", ours),
        base=Side("one bare trap", traps),
        kind="value",
        most=14_000 / rate,
        elsewhere="on bare metal" if hypervisor else "",
        limits=f"EEXIT is one trap of an invalid opcode, {trapped * rate:,.0f} cycles here",
        note=f"{ecall * rate:,.0f} cycles at {rate:.2f} GHz (time stamp counter), of which EEXIT's trap is "
        f"{trapped * rate:,.0f} and the rest of the round trip {rest * rate:,.0f}"
        + (
            f". On bare metal a trap is about {BARE_TRAP:,} ns; with that in place of this machine's, "
            f"{estimate:,.0f} ns or {estimate * rate:,.0f} cycles: an estimate, not measured"
            if hypervisor
            else ""
        ),
        profile=(
            ("EEXIT's trap", trapped),
            (f"{ENTRY_CALLS} system calls at the entry: signals held and let go, the thread's number",
             ENTRY_CALLS * system_call),
            ("our code: the vDSO's entry, EENTER, EEXIT, the enclave's own", rest - ENTRY_CALLS * system_call),
        ),
        extra={
            "cycles": ecall * rate, "trap_cycles": trapped * rate, "rest_cycles": rest * rate, "ghz": rate,
            "estimate_on_bare_metal": {"ns": estimate, "trap_ns": BARE_TRAP} if hypervisor else None,
        },
    )  # fmt: skip


def measuring(room: Bench, scale: Scale) -> Figure:
    pages = 16 * scale.calls // 50 if scale.calls > 50 else 32
    data = bytes(range(256)) * (MEASURED_PAGE * pages // 256)
    plain: list[float] = []
    waits: list[float] = []

    def hashed() -> float:
        begin = time.process_time()
        hashlib.sha256(data).digest()
        return (time.process_time() - begin) / pages * 1e6

    def added() -> float:
        """Of processors' time: by the clock, most of it goes by beside the pages' own work."""
        wall, work = room.add("plain", pages)
        measured_wall, measured_work = room.add("measured", pages)  # of one moment
        plain.append(work)
        waits.append(measured_wall - wall)
        return max(0.0, measured_work - work)

    ours, base = interleave(scale.rounds, added, hashed)
    without, waited = median(plain[2:]), median(waits[2:])
    return Figure(
        row="measuring-processor",
        unit="µs a page",
        ours=Side("EADD and EEXTEND", ours),
        base=Side("SHA-256", base),
        kind="ratio",
        most=1.3,
        limits="a page that waits to be hashed is read again by another thread",
        note=f"of processors' time; the page itself (backing, copy, EPCM) costs {without:.2f} µs more. By the clock "
        f"measuring adds {waited:.2f} µs a page, as it goes on behind ADD_PAGES",
        extra={"page_us": without, "wall_us": waited},
    )


def measure(folder: Path, scale: Scale) -> list[Figure]:
    with bench(folder) as room:
        return [ecalls(room, scale), measuring(room, scale)]
