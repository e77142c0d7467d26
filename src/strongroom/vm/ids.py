"""User namespaces made for their id mapping alone: for mounts that show one user's files as another's."""

from __future__ import annotations

import os
import signal

from strongroom.machine import linux


def mapped_namespace(uid: int, gid: int, to: int) -> int:
    """A descriptor of a user namespace that maps ``uid`` and ``gid`` to ``to``. Needs privileges. Raises OSError.

    On a mount that carries it, what ``uid`` owns on the disk belongs to ``to``, and what ``to`` writes becomes
    ``uid``'s (mount_setattr(2), MOUNT_ATTR_IDMAP).
    """
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(ready_write, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(ready_write)
    try:
        if not os.read(ready_read, 1):
            raise OSError(1, "a user namespace was refused")
        for name, own in (("uid_map", uid), ("gid_map", gid)):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(f"{own} {to} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
