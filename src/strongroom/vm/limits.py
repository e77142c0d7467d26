"""The limits of a VM's size: control groups (v1 or v2) where they can be made, else what each process may be set.

One group a VM and controller, named after the daemon's home so that a restarted daemon finds a dead one's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from strongroom.vm.sizes import Size

ROOT = Path("/sys/fs/cgroup")
PIDS_MAX = 32768


@dataclass
class Limits:
    """What holds a VM's processes to its size; ``how`` tells people."""

    groups: list[Path] = field(default_factory=list)
    affinity: list[int] = field(default_factory=list)
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    how: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        return [os.fspath(group / "cgroup.procs") for group in self.groups]


def prefix(home: Path) -> str:
    """The start of the names of this home's groups."""
    return "strongroom-" + hashlib.sha256(os.fsencode(home)).hexdigest()[:12] + "-"


def _write(path: Path, value: str) -> bool:
    try:
        path.write_text(value, encoding="ascii")
    except OSError:
        return False
    return True


def _v2_controllers() -> set[str]:
    with contextlib.suppress(OSError):
        return set((ROOT / "cgroup.controllers").read_text(encoding="ascii").split())
    return set()


def apply(home: Path, vm_id: int, size: Size, cpus: int | None = None) -> Limits:
    """Make what can be made for this VM. Never fails: what cannot be had is left out, and ``how`` says so."""
    limits = Limits()
    name = prefix(home) + str(vm_id)
    memory = size.memory_gib << 30
    have_cpu = have_memory = False
    if os.geteuid() == 0:
        v2 = _v2_controllers()
        if v2:
            group = ROOT / name
            with contextlib.suppress(OSError):
                group.mkdir(exist_ok=True)
                _write(ROOT / "cgroup.subtree_control", "+cpu +memory +pids")
                have_cpu = _write(group / "cpu.max", f"{size.vcpus * 100000} 100000")
                have_memory = _write(group / "memory.max", str(memory))
                _write(group / "pids.max", str(PIDS_MAX))
                limits.groups.append(group)
        for controller, settings in (
            ("cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": str(size.vcpus * 100000)}),
            ("memory", {"memory.limit_in_bytes": str(memory)}),
            ("pids", {"pids.max": str(PIDS_MAX)}),
        ):
            top = ROOT / controller
            if not (top / "cgroup.procs").exists():
                continue
            group = top / name
            with contextlib.suppress(OSError):
                group.mkdir(exist_ok=True)
                written = [_write(group / file, value) for file, value in settings.items()]
                done = all(written)
                have_cpu |= done and controller == "cpu"
                have_memory |= done and controller == "memory"
                limits.groups.append(group)
    available = sorted(os.sched_getaffinity(0))
    if have_cpu:
        limits.how.append(f"{size.vcpus} vCPU by control group")
    else:
        count = min(size.vcpus, cpus or len(available))
        limits.affinity = available[:count]
        limits.how.append(f"{size.vcpus} vCPU by CPU affinity ({len(limits.affinity)} of {len(available)})")
    if have_memory:
        limits.how.append(f"{size.memory_gib} GiB by control group")
    else:
        limits.rlimits["RLIMIT_DATA"] = (memory, memory)
        limits.how.append(f"{size.memory_gib} GiB a process by RLIMIT_DATA")
    unlimited = resource.RLIM_INFINITY
    limits.rlimits |= {"RLIMIT_CORE": (0, 0), "RLIMIT_MEMLOCK": (unlimited, unlimited)}
    return limits


def remove(groups: list[Path]) -> None:
    """End what is left in the groups and remove them."""
    for group in groups:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                _kill(group)
                time.sleep(0.02)


def _kill(group: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "cgroup.procs").read_text(encoding="ascii").split():
            if int(line) != os.getpid():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(line), signal.SIGKILL)


def clean_up(home: Path) -> None:
    """Remove the groups that a killed daemon of this home left behind, with what is still in them."""
    name = prefix(home)
    for top in (ROOT, ROOT / "cpu", ROOT / "memory", ROOT / "pids"):
        with contextlib.suppress(OSError):
            remove([path for path in top.iterdir() if path.name.startswith(name) and path.is_dir()])
