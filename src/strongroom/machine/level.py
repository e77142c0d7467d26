"""The three levels (design: "Three levels, named and printed"): which one this machine gives, and why not more.

Facts are found by trying, never by version numbers. A level may be forced, downwards only.
"""

from __future__ import annotations

import enum
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from strongroom.errors import StrongroomError, UsageError
from strongroom.machine import linux

ENVIRONMENT = "STRONGROOM_LEVEL"


class Level(enum.StrEnum):
    """What is kept out of a running enclave, strongest first."""

    SEALED = "sealed"
    SEPARATED = "separated"
    FAITHFUL = "faithful"


KEEPS_OUT = {
    Level.SEALED: "other users, the VM's root, and of data pages the host's root without kernel tracing",
    Level.SEPARATED: "other users, the VM's root",
    Level.FAITHFUL: "nobody: behaviour and attestation are exact, protection is none",
}
# The line that gets each: Debian's and Ubuntu's way; on by default from Linux 6.5.
SECRET_MEMORY = (
    "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&secretmem.enable=1 /' /etc/default/grub && sudo update-grub && sudo reboot "
    "(Linux 5.14 or later)"
)
LOCKED_MEMORY = (
    "sudo prlimit --memlock=unlimited --pid $$, then `strongroom daemon stop`: a daemon keeps the limit that it "
    "was started with (in Docker: docker run --ulimit memlock=-1)"
)
NAMESPACES = (
    "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=10000 "
    "(in Docker: docker run --privileged)"
)
_STRENGTH = {Level.FAITHFUL: 0, Level.SEPARATED: 1, Level.SEALED: 2}


def as_root() -> str:
    """What gets root's capabilities. By the whole path: sudo's PATH has no virtual environment in it."""
    if os.geteuid() == 0:
        return "give this root all capabilities (in Docker: docker run --privileged)"
    called = shutil.which(sys.argv[0]) if os.path.basename(sys.argv[0]) == "strongroom" else None
    program = os.path.abspath(called) if called else f"{sys.executable} -m strongroom"
    return f"sudo {program} doctor, and what you run likewise (root has VMs of its own)"


class LevelUnavailable(StrongroomError):
    """The level asked for is more than this machine gives."""


@dataclass(frozen=True)
class Facts:
    """What the kernel lets this process do."""

    privileged: bool
    """Root's capabilities in the initial user namespace: other users' ids, namespaces."""
    user_namespaces: bool
    """An ordinary user may make user, process-id and mount namespaces."""
    secret_memory: bool
    """memfd_secret is offered."""
    memlock_bytes: int
    """How much memory may be locked, so how much may be secret; -1: no limit, or a
    capability that exempts from it and can be handed on."""

    @property
    def namespaces(self) -> bool:
        return self.privileged or self.user_namespaces


def in_child(action: Callable[[], None]) -> bool:
    """Whether ``action`` succeeds in a forked child (namespaces must not change for this process)."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status == 0


def _try_namespaces() -> None:
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)


def _try_user_namespace() -> None:
    uid = os.geteuid()
    linux.unshare(linux.CLONE_NEWUSER)
    with open("/proc/self/uid_map", "w", encoding="ascii") as file:
        file.write(f"1000 {uid} 1")
    _try_namespaces()


def _secret_memory() -> bool:
    try:
        os.close(linux.memfd_secret())
    except OSError:
        return False
    return True


def find_facts() -> Facts:
    """Try what the levels need. Forks; call it where no threads run."""
    held = linux.effective_capabilities()

    def have(*capabilities: int) -> bool:
        return all(held >> capability & 1 for capability in capabilities)

    initial = linux.in_initial_user_namespace()
    privileged = (
        initial
        and have(linux.CAP_SETUID, linux.CAP_SETGID, linux.CAP_SYS_ADMIN)
        and in_child(_try_namespaces)
    )
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY or (initial and have(linux.CAP_IPC_LOCK)):
        hard = -1
    return Facts(
        privileged=privileged,
        user_namespaces=in_child(_try_user_namespace),
        secret_memory=_secret_memory(),
        memlock_bytes=hard,
    )


def best(facts: Facts) -> Level:
    """The strongest level these facts allow."""
    if facts.privileged and facts.secret_memory and facts.memlock_bytes == -1:
        return Level.SEALED
    if facts.namespaces:
        return Level.SEPARATED
    return Level.FAITHFUL


def missing(facts: Facts) -> list[tuple[str, str]]:
    """What keeps this machine from ``sealed``: (what is missing, what gets it)."""
    found = []
    if not facts.privileged:
        found.append(("root's capabilities", as_root()))
    if not facts.secret_memory:
        found.append(
            (
                "secret memory (memfd_secret)",
                SECRET_MEMORY,
            )
        )
    if facts.memlock_bytes != -1:
        found.append((f"locked memory beyond {facts.memlock_bytes / 2**20:.0f} MiB", LOCKED_MEMORY))
    if not facts.namespaces:
        found.append(("namespaces", NAMESPACES))
    return found


def parse(text: str) -> Level:
    """A level by name. Raises UsageError."""
    try:
        return Level(text.lower())
    except ValueError as error:
        raise UsageError(f"no level {text!r}", "choose sealed, separated or faithful") from error


def choose(facts: Facts, forced: str | None) -> Level:
    """The level to run at. Raises UsageError, LevelUnavailable."""
    available = best(facts)
    if not forced:
        return available
    wanted = parse(forced)
    if _STRENGTH[wanted] > _STRENGTH[available]:
        reasons = "; ".join(what for what, _ in missing(facts)) or "see doctor"
        raise LevelUnavailable(
            f"level {wanted} is not to be had here (missing: {reasons})", "see `strongroom doctor`"
        )
    return wanted


def from_environment() -> str | None:
    """The level forced by STRONGROOM_LEVEL, as text."""
    return os.environ.get(ENVIRONMENT) or None
