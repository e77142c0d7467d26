"""The parent's end of a run's status socket: who is who, what went wrong, how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable

from strongroom.errors import StrongroomError
from strongroom.machine import protocol

_CREDENTIALS = struct.Struct("3i")


class SpawnFailed(StrongroomError):
    """The VM could not be entered or the program not started."""


class RunStatus:
    """Follow one run. ``poll()`` after its socket is readable; ``exit`` is set when the run is over.

    Holds descriptors of the monitor's and the program's processes (no reuse of process ids can hit another one).
    """

    def __init__(self, before_program: Callable[[int, int], None] = lambda pid, pidfd: None) -> None:
        """``before_program(pid, pidfd)`` is called while the program waits to be let go."""
        self._before_program = before_program
        self.sock, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.setblocking(False)
        self.exit: int | None = None
        self.program: int | None = None
        """The program's process id in the caller's namespace."""
        self.pidfds: dict[str, int] = {}

    def poll(self) -> None:
        """Take what has arrived. Raises SpawnFailed."""
        while self.exit is None:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if not data:
                if self.program is None:
                    raise SpawnFailed(
                        "the run was killed from outside before its program started", "run it again"
                    )
                self.exit = 128 + signal.SIGKILL  # killed from outside before it could say anything
                return
            self._take(protocol.parse(data), ancillary)

    def _take(self, message: protocol.Message, ancillary: list[tuple[int, int, bytes]]) -> None:
        if "error" in message:
            raise SpawnFailed(protocol.text(message, "error"), "see `strongroom doctor`")
        if "exit" in message:
            code = os.waitstatus_to_exitcode(protocol.number(message, "exit", 0, 0xFFFF))
            self.exit = code if code >= 0 else 128 - code
            return
        who = protocol.text(message, "who", 16)
        for level, kind, content in ancillary:
            if (
                level == socket.SOL_SOCKET
                and kind == socket.SCM_CREDENTIALS
                and len(content) >= _CREDENTIALS.size
            ):
                pid = _CREDENTIALS.unpack_from(content)[0]
                # The sender waits for the answer, so the number is still its own.
                with contextlib.suppress(ProcessLookupError):
                    self.pidfds[who] = os.pidfd_open(pid)
                    if who == "program":
                        self.program = pid
                        self._before_program(pid, self.pidfds[who])
        with contextlib.suppress(OSError):
            self.sock.send(b"go")

    def signal(self, number: int) -> None:
        """Send the program a signal (nothing where it has not started or is over)."""
        pidfd = self.pidfds.get("program")
        if pidfd is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, number)

    def kill(self) -> None:
        """End the run and all that is in its namespace."""
        for who in ("monitor", "program"):
            pidfd = self.pidfds.get(who)
            if pidfd is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def close(self) -> None:
        for pidfd in self.pidfds.values():
            os.close(pidfd)
        self.pidfds.clear()
        self.sock.close()
        self.theirs.close()
