"""One page evicted and reloaded in place, and whole runs against the pressure on the EPC."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, Scale, Side, interleave
from benchmarks.machine import images, package_server, trap
from strongroom.image.signer import KeySigner

PAGES = 1600
PRESSED, FITS = 400, 4 * PAGES
PRESSURES = (50, 100, 125, 150, 200, 300, 400)
"""Working set in percent of the EPC."""
_CYCLES = 40_000


def _pager(folder: Path, epc_pages: int, scenario: str, rounds: int) -> str:
    with package_server(epc_pages=epc_pages) as server:
        program = [str(images.BUILD / "pager"), scenario, str(folder / "heap.sgxs"), str(folder / "heap.sig")]
        done = server.run([*program, hex(images.HEAP), str(PAGES), str(rounds)], timeout=300)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, program, done.stdout, done.stderr)
    said: str = done.stdout.decode()
    return said


def _page(folder: Path, epc_pages: int, rounds: int) -> float:
    """ns for a page: one access to each cluster in turn, so that under pressure each one is reloaded as a whole."""
    return float(_pager(folder, epc_pages, "price", rounds).split("page ")[1].split()[0]) * 1e3


def _walk(folder: Path, percent: int, rounds: int) -> float:
    """Seconds for filling and checking all pages over and over, in an EPC of a share of them; the start taken off."""
    marks = [time.perf_counter()]
    for times in (0, rounds):
        _pager(folder, PAGES * 100 // percent + 64, "walk", times)
        marks.append(time.perf_counter())
    start, whole = marks[1] - marks[0], marks[2] - marks[1]
    return max(whole - start, 1e-6)


def measure(folder: Path, scale: Scale) -> list[Figure]:
    if " aes " not in Path("/proc/cpuinfo").read_text():
        return [Figure("paging", "ns", None, None, "difference", 0,
                       not_measured="this processor has no AES-NI: nothing is paged")]  # fmt: skip
    images.compile_all()
    mrenclave = images.build_image(folder / "heap.sgxs", heap_pages=PAGES)
    images.sign_image(mrenclave, folder / "heap.sig", KeySigner.generate())
    rounds = max(1, scale.calls // 2000)
    ours, base = interleave(
        max(2, scale.rounds // 3),
        lambda: _page(folder, PRESSED, rounds),
        lambda: _page(folder, FITS, rounds),
    )
    _, rate = trap(100)
    pressures = PRESSURES if scale.rounds > 2 else PRESSURES[:2]
    walks: dict[int, list[float]] = {percent: [] for percent in pressures}
    for _ in range(max(1, scale.rounds // 7)):
        for percent in pressures:  # all in turn, so that a busy moment is not one point's
            walks[percent].append(_walk(folder, percent, 4 * rounds))
    fits = min(walks[PRESSURES[0]])
    cost = median(ours) - median(base)
    return [
        Figure(
            row="paging",
            unit="ns",
            ours=Side("under pressure", ours),
            base=Side("all of it fits", base),
            kind="difference",
            most=_CYCLES / rate,
            limits="each page is encrypted once and decrypted once, its cluster closed and opened by mprotect, and "
            "the access that finds it out is a trap",
            note=f"{cost * rate:,.0f} cycles at {rate:.2f} GHz, clusters of 16; in both: the share of an ECALL",
            extra={
                "cycles": cost * rate,
                "pictures": {
                    "fills and checks all its pages": {
                        percent: min(times) / fits for percent, times in walks.items()
                    }
                },
            },
        )
    ]
