"""What `strongroom doctor` looks at: each check is tried, not guessed, and says what its absence costs."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.machine import level, linux
from strongroom.machine.watch import Watch

# getauxval(3); arch/x86/include/uapi/asm/hwcap2.h
_AT_HWCAP2 = 26
_HWCAP2_FSGSBASE = 2


@dataclass(frozen=True)
class Check:
    """One line. ``needed``: no enclave runs without it. ``cost`` and ``remedy`` matter where ``ok`` is false."""

    group: str
    name: str
    ok: bool
    detail: str
    cost: str = ""
    remedy: str = ""
    needed: bool = False

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("flags"):
                    return set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def _fsgsbase() -> bool:
    return bool(ctypes.CDLL(None).getauxval(ctypes.c_ulong(_AT_HWCAP2)) & _HWCAP2_FSGSBASE)


def _seccomp_trap() -> bool:
    try:
        return "trap" in Path("/proc/sys/kernel/seccomp/actions_avail").read_text(encoding="ascii").split()
    except OSError:
        return False


def _bytes(count: int) -> str:
    return "no limit" if count < 0 else f"{count / 2**20:.0f} MiB"


def _processor() -> list[Check]:
    flags = _cpu_flags()
    return [
        Check("processor", "x86-64", platform.machine() == "x86_64", platform.machine(), needed=True,
              cost="no enclave runs", remedy="use a 64-bit Intel or AMD machine"),
        Check("processor", "FSGSBASE", _fsgsbase(), "FS and GS bases by one instruction",
              "entry and exit by system calls: slower", "boot Linux >= 5.9 without nofsgsbase", needed=True),
        Check("processor", "SHA-NI", "sha_ni" in flags, "measuring by the processor's SHA instructions",
              "measuring an image takes several times as long", "use a machine that has them"),
        Check("processor", "protection keys", {"pku", "ospke"} <= flags, "enclave pages closed by a key in `exec`",
              "in `exec` pages stay open to the host program's stray writes while a thread is inside",
              "use a machine that has them (Intel from Skylake-SP, AMD from Zen 3)"),
        Check("processor", "/dev/kvm", os.access("/dev/kvm", os.R_OK | os.W_OK), "for the driver kvm, to come",
              "nothing yet: the driver sandbox does not use it", "chmod a+rw /dev/kvm, or join the group kvm"),
    ]  # fmt: skip


def _kernel(facts: level.Facts) -> list[Check]:
    missing = dict(level.missing(facts))
    locked = facts.memlock_bytes
    ordinary = "as an ordinary user (user namespaces)" if facts.user_namespaces else "none"
    return [
        Check("kernel", "ptrace", level.in_child(linux.ptrace_traceme), "the processor's library enters programs by it",
              "no enclave runs", "docker run --cap-add SYS_PTRACE, or sysctl -w kernel.yama.ptrace_scope=1",
              needed=True),
        Check("kernel", "seccomp traps", _seccomp_trap(), "the SGX device is served by them",
              "no enclave runs", "use a kernel with CONFIG_SECCOMP_FILTER", needed=True),
        Check("kernel", "secret memory", facts.secret_memory, "memfd_secret: enclave data outside the kernel's map",
              "the level is separated at most", "boot Linux >= 5.14 with secretmem.enable=1"),
        Check("kernel", "locked memory", locked == -1, _bytes(locked),
              "at most that much of an enclave's data is in secret memory", "run as root, or: ulimit -l unlimited"),
        Check("kernel", "namespaces", facts.namespaces,
              "as root" if facts.privileged else ordinary,
              "VMs have no file view and no process ids of their own; the level is faithful",
              missing.get("namespaces", "")),
    ]  # fmt: skip


def _privileges(facts: level.Facts) -> list[Check]:
    watch = Watch(lambda process, tracer: False)
    watch_ok = watch.available
    watch.close()
    groups = os.access("/sys/fs/cgroup", os.W_OK) or os.access("/sys/fs/cgroup/memory", os.W_OK)
    return [
        Check("privileges", "root", facts.privileged, "other users' ids for loader processes",
              "the level is separated at most", "run Strongroom as root"),
        Check("privileges", "debugger watch", facts.privileged and watch_ok, "process-event connector",
              "at level sealed a debugger's attach is not answered by a kill", "run as root on a kernel with "
              "CONFIG_PROC_EVENTS"),
        Check("privileges", "control groups", groups and os.geteuid() == 0, "vCPU and memory of a VM's size",
              "limits by CPU affinity and RLIMIT_DATA a process instead", "run as root with /sys/fs/cgroup writable"),
    ]  # fmt: skip


def _parts() -> list[Check]:
    def built(name: str) -> Check:
        try:
            return Check("parts", name, True, os.fspath(paths.native(name)), needed=True)
        except StrongroomError as error:
            return Check("parts", name, False, "not built", error.message, "run `make`", needed=True)

    checks = [built(name) for name in sorted(paths.NATIVE_NAMES)]
    try:
        checks.append(Check("parts", "data folder", True, os.fspath(paths.ensure_home()), needed=True))
    except StrongroomError as error:
        checks.append(
            Check(
                "parts",
                "data folder",
                False,
                os.fspath(paths.home()),
                error.message,
                error.next_step,
                needed=True,
            )
        )
    return checks


def all_checks(facts: level.Facts) -> list[Check]:
    """Every check, in the order of the tree."""
    makers: list[Callable[[], list[Check]]] = [
        _processor, lambda: _kernel(facts), lambda: _privileges(facts), _parts,
    ]  # fmt: skip
    return [check for maker in makers for check in maker()]
