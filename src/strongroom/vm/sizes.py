"""The catalogue of VM sizes: Azure's DCsv2 (SGX1), DCsv3 and DCdsv3 (SGX2) families.

Figures from Microsoft's size pages (DCsv2: November 2020; DCsv3: 2022). ``None``: the page gives none.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from strongroom.errors import UsageError

DEFAULT_SIZE = "Standard_DC2s_v2"


@dataclass(frozen=True)
class Size:
    """One VM size. Memory and temporary disk in GiB, EPC in MiB, throughput in MB/s."""

    name: str
    family: str
    vcpus: int
    memory_gib: int
    temp_gib: int
    epc_mib: int
    data_disks: int
    iops: int | None
    mbps: int | None
    nics: int | None
    sgx2: bool
    premium: bool

    @property
    def epc_pages(self) -> int:
        """EPC in pages of 4096 bytes."""
        return self.epc_mib * 256

    @property
    def memory_pages(self) -> int:
        """Memory in pages of 4096 bytes: room for what is evicted from the EPC."""
        return self.memory_gib << 18


def _v2(name: str, vcpus: int, memory: int, temp: int, epc: int, disks: int, premium: bool) -> Size:
    return Size(name, "standardDCSv2Family", vcpus, memory, temp, epc, disks,
                2000 * vcpus, 16 * vcpus, 2, sgx2=False, premium=premium)  # fmt: skip


def _v3(letters: str, family: str, temps: tuple[int, ...]) -> list[Size]:
    columns = zip(
        (1, 2, 4, 8, 16, 24, 32, 48),
        (8, 16, 32, 64, 128, 192, 256, 384),
        temps,
        (4, 8, 16, 32, 64, 128, 192, 256),
        (4, 8, 16, 32, 32, 32, 32, 32),
        strict=True,
    )
    return [
        Size(f"Standard_DC{vcpus}{letters}_v3", family, vcpus, memory, temp, epc * 1024, disks,
             None, None, None, sgx2=True, premium=True)
        for vcpus, memory, temp, epc, disks in columns
    ]  # fmt: skip


CATALOGUE: tuple[Size, ...] = (
    _v2("Standard_DC1s_v2", 1, 4, 50, 28, 1, True),
    _v2("Standard_DC2s_v2", 2, 8, 100, 56, 2, True),
    _v2("Standard_DC4s_v2", 4, 16, 200, 112, 4, True),
    _v2("Standard_DC8_v2", 8, 32, 400, 168, 8, False),
    *_v3("s", "standardDCSv3Family", (0,) * 8),
    *_v3("ds", "standardDDCSv3Family", (75, 150, 300, 600, 1200, 1800, 2400, 2400)),
)
_BY_NAME = {size.name.lower(): size for size in CATALOGUE}


def find(name: str) -> Size:
    """The size of that name, in any case of letters. Raises UsageError with the nearest names."""
    size = _BY_NAME.get(name.lower())
    if size is None:
        near = [key for key in _BY_NAME if key.startswith(name.lower())]
        near = near or difflib.get_close_matches(name.lower(), _BY_NAME, n=1, cutoff=0.5)
        hint = f"did you mean {_BY_NAME[near[0]].name}?" if near else ""
        raise UsageError(f"no VM size {name!r}", f"{hint} see `strongroom vm sizes`".strip())
    return size


def next_larger(size: Size) -> Size | None:
    """The next size of the family with more EPC; None where there is none."""
    larger = [s for s in CATALOGUE if s.family == size.family and s.epc_mib > size.epc_mib]
    return min(larger, key=lambda s: s.epc_mib) if larger else None


def smallest_holding(epc_mib: int, family: str) -> Size | None:
    """The smallest size of ``family`` whose EPC is at least ``epc_mib``."""
    fitting = [s for s in CATALOGUE if s.family == family and s.epc_mib >= epc_mib]
    return min(fitting, key=lambda s: s.epc_mib) if fitting else None
