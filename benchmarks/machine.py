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
from benchmarks.room import HERE, REPOSITORY

sys.path += [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "native")]

import images

from strongroom.image.signer import KeySigner
from support.package_server import PackageServer, package_server

__all__ = ["BUILD", "Bench", "bench", "compile_all", "images", "measure", "package_server", "trap"]
BUILD = REPOSITORY / "build" / "benchmarks"
MEASURED_PAGE = 64 + 16 * (64 + 256)
"""Bytes hashed for one measured page: EADD's record, sixteen of EEXTEND with what they measure."""


@dataclass(frozen=True)
class Bench:
    """The test enclave of tests/native, built and signed, and a package to start programs on."""

    server: PackageServer
    image: Path
    signature: Path

    def run(self, *words: str, options: tuple[str, ...] = ()) -> float:
        """``machine`` with these words: what it printed."""
        done = self.server.run([str(BUILD / "machine"), *words], options)
        if done.returncode:
            raise RuntimeError(f"machine {words}: {done.stderr.decode()}")
        return float(done.stdout)

    def ecall(self, calls: int) -> float:
        """ns for one ECALL and back."""
        return self.run("ecall", str(self.image), str(self.signature), str(calls))

    def add(self, how: str, pages: int) -> float:
        """µs for one page added, backed by ordinary memory: what varies is the measuring."""
        return self.run("add", how, str(pages), options=("--no-secretmem",)) / 1e3


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

    def bare() -> float:
        ns, ticks = trap(scale.calls)
        rates.append(ticks)
        return ns

    ours, traps = interleave(scale.rounds, lambda: room.ecall(scale.calls), bare)
    rate = median(rates)
    cycles = median(ours) * rate
    return Figure(
        row="ecall",
        unit="ns",
        ours=Side("ECALL", ours),
        base=Side("one bare trap", traps),
        kind="value",
        most=14_000 / rate,
        limits=f"EEXIT is one trap of an invalid opcode, {median(traps) * rate:,.0f} cycles here; the rest of the "
        f"round trip is {(median(ours) - median(traps)) * rate:,.0f}",
        note=f"{cycles:,.0f} cycles at {rate:.2f} GHz (time stamp counter); the goal is hardware's 14,000",
        extra={"cycles": cycles, "trap_cycles": median(traps) * rate, "ghz": rate},
    )


def measuring(room: Bench, scale: Scale) -> Figure:
    pages = 16 * scale.calls // 50 if scale.calls > 50 else 32
    data = bytes(range(256)) * (MEASURED_PAGE * pages // 256)
    plain: list[float] = []

    def hashed() -> float:
        begin = time.perf_counter()
        hashlib.sha256(data).digest()
        return (time.perf_counter() - begin) / pages * 1e6

    def added() -> float:
        plain.append(room.add("plain", pages))
        return max(0.0, room.add("measured", pages) - plain[-1])  # of one moment

    ours, base = interleave(scale.rounds, added, hashed)
    without = median(plain[2:])
    return Figure(
        row="measuring-processor",
        unit="µs a page",
        ours=Side("EADD and EEXTEND", ours),
        base=Side("SHA-256", base),
        kind="ratio",
        most=1.3,
        limits="each record of 64 bytes is a call of its own",
        note=f"the page itself (backing, copy, EPCM) costs {without:.2f} µs more",
        extra={"page_us": without},
    )


def measure(folder: Path, scale: Scale) -> list[Figure]:
    with bench(folder) as room:
        return [ecalls(room, scale), measuring(room, scale)]
