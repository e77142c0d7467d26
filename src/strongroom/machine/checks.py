"""What `strongroom doctor` looks at: each check is tried, not guessed, and says what its absence costs."""

from __future__ import annotations

import ctypes
import importlib.util
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
MAPPINGS = 65530
"""Linux's own default of vm.max_map_count."""
_EXTRAS = (
    ("build", ("capstone", "elftools", "packaging"), "`build` does not work"),
    ("attestation", ("dcap_qvl",), "`verify` does not work, and no key is released to an enclave"),
)


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


def _protection_keys() -> bool:
    try:
        linux.protection_key()
    except OSError:
        return False
    return True


def _fsgsbase() -> bool:
    return bool(ctypes.CDLL(None).getauxval(ctypes.c_ulong(_AT_HWCAP2)) & _HWCAP2_FSGSBASE)


def _seccomp_trap() -> bool:
    try:
        return "trap" in Path("/proc/sys/kernel/seccomp/actions_avail").read_text(encoding="ascii").split()
    except OSError:
        return False


def _mappings() -> int:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


_DC2S_EPC_MIB = 56
"""EPC of Standard_DC2s_v2, the usual size for one program (vm/sizes.py, which is above this package)."""


def _bytes(count: int) -> str:
    """The limit on locked memory, and the share of an enclave's data that it lets be secret.

    A page of the enclave is mapped twice, by the library and by the program, and Linux counts both.
    """
    if count < 0:
        return "no limit: all of an enclave's data"
    secret = count / 2**21
    share = min(100, 100 * secret / _DC2S_EPC_MIB)
    return f"{count / 2**20:.0f} MiB: {secret:.1f} MiB of an enclave's data, {share:.0f} % of a Standard_DC2s_v2's EPC"


def _processor() -> list[Check]:
    flags = _cpu_flags()
    another = "use a machine that has it, or pass the host's processor on to this one (QEMU: -cpu host)"
    return [
        Check("processor", "x86-64", platform.machine() == "x86_64", platform.machine(), needed=True,
              cost="no enclave runs", remedy="use a 64-bit Intel or AMD machine"),
        Check("processor", "FSGSBASE", _fsgsbase(), "an enclave sets its FS and GS bases by one instruction",
              "no Python enclave runs", "boot Linux >= 5.9 without nofsgsbase", needed=True),
        Check("processor", "XSAVE", "xsave" in flags, "what an exit saves", "no enclave runs", another, needed=True),
        Check("processor", "RDRAND", "rdrand" in flags, "random numbers inside, not the host's",
              "no Python enclave runs", another, needed=True),
        Check("processor", "SHA-NI", "sha_ni" in flags, "pages are measured by the processor's SHA instructions",
              "measuring an image takes several times as long", another),
        Check("processor", "AES-NI", {"aes", "pclmulqdq", "ssse3"} <= flags, "EPC paging and encrypted files",
              "an enclave larger than the EPC gets ENOMEM, encrypted files do not open", another),
        Check("processor", "protection keys", _protection_keys(),
              "an enclave's pages are closed to its host program's other threads while one is inside, too",
              "under `exec` they are closed while no thread is inside, by mprotect on a budget: while one is, and "
              "between fast calls, they stay open to the host program's stray accesses", another),
    ]  # fmt: skip


def _kernel(facts: level.Facts) -> list[Check]:
    locked = facts.memlock_bytes
    ordinary = "as an ordinary user (user namespaces)" if facts.user_namespaces else "none"
    return [
        Check("kernel", "ptrace", level.in_child(linux.ptrace_traceme), "the processor's library enters programs by it",
              "no enclave runs",
              "sudo sysctl -w kernel.yama.ptrace_scope=1 (in Docker: docker run --cap-add SYS_PTRACE)", needed=True),
        Check("kernel", "seccomp traps", _seccomp_trap(), "the SGX device is served by them",
              "no enclave runs", "use a kernel with CONFIG_SECCOMP_FILTER", needed=True),
        Check("kernel", "secret memory", facts.secret_memory, "memfd_secret: enclave data outside the kernel's map",
              "the level is separated at most", level.SECRET_MEMORY),
        Check("kernel", "locked memory", locked == -1, _bytes(locked),
              "at most that much of an enclave's data is in secret memory, and none is touched ahead",
              level.LOCKED_MEMORY),
        Check("kernel", "mappings", _mappings() >= MAPPINGS, f"{_mappings():,} in one process (vm.max_map_count)",
              "large enclaves end with: the kernel refuses more mappings",
              f"sudo sysctl -w vm.max_map_count={MAPPINGS}"),
        Check("kernel", "namespaces", facts.namespaces,
              "as root" if facts.privileged else ordinary,
              "VMs have no file view and no process ids of their own; the level is faithful",
              level.NAMESPACES),
    ]  # fmt: skip


def _privileges(facts: level.Facts) -> list[Check]:
    watch = Watch(lambda process, tracer: False)
    watch_ok = watch.available
    watch.close()
    groups = os.access("/sys/fs/cgroup", os.W_OK) or os.access("/sys/fs/cgroup/memory", os.W_OK)
    return [
        Check("privileges", "root", facts.privileged, "other users' ids for loader processes",
              "the level is separated at most", level.as_root()),
        Check("privileges", "debugger watch", facts.privileged and watch_ok, "process-event connector",
              "at level sealed a debugger's attach is not answered by a kill",
              f"{level.as_root()}; and a kernel with CONFIG_PROC_EVENTS"),
        Check("privileges", "control groups", groups and os.geteuid() == 0, "vCPU and memory of a VM's size",
              "limits by CPU affinity and RLIMIT_DATA a process instead",
              f"{level.as_root()}, where /sys/fs/cgroup can be written"),
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


def _extras() -> list[Check]:
    checks = []
    for extra, modules, cost in _EXTRAS:
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        checks.append(
            Check(
                "parts", f"extra {extra}", not missing,
                f"without {', '.join(missing)}" if missing else ", ".join(modules),
                cost, f"pip install 'strongroom[{extra}]'",
            )
        )  # fmt: skip
    return checks


def all_checks(facts: level.Facts) -> list[Check]:
    """Every check, in the order of the tree."""
    makers: list[Callable[[], list[Check]]] = [
        _processor, lambda: _kernel(facts), lambda: _privileges(facts), _parts, _extras,
    ]  # fmt: skip
    return [check for maker in makers for check in maker()]
