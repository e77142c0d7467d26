"""What the daemon asks of the spawner for one process: a record that travels as a message."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from strongroom.vm.view import Bind


@dataclass(frozen=True)
class Plan:
    """One process to start in a VM.

    ``isolate``: namespaces and a file view of its own. ``user_namespace``: made first, for a caller without
    privileges; ``uid`` is then the number inside. Otherwise ``uid`` (None: the caller's own) is switched to.
    ``lock_memory``: the program keeps CAP_IPC_LOCK, for secret memory beyond RLIMIT_MEMLOCK.
    ``confine``: root in the VM keeps what a container's root has. ``mask``: host paths that are not seen.
    ``session``: in a session of its own, away from the caller's terminal. Descriptors that travel beside it: the
    status socket, then the program's 0, 1, 2, ….
    """

    hostname: str
    folder: str
    native: str
    argv: list[str]
    environment: dict[str, str]
    isolate: bool
    user_namespace: bool
    uid: int | None
    lock_memory: bool = False
    cwd: str = "/"
    session: bool = True
    confine: bool = False
    mask: list[str] = field(default_factory=list)
    binds: list[Bind] = field(default_factory=list)
    cgroup_files: list[str] = field(default_factory=list)
    affinity: list[int] = field(default_factory=list)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The reverse; the sender is the daemon that started this process."""
        binds = [Bind(**bind) for bind in message.pop("binds")]
        limits = {name: (soft, hard) for name, (soft, hard) in message.pop("limits").items()}
        return cls(binds=binds, limits=limits, **message)
