"""Kills a protected process when a debugger attaches: the kernel's process-event connector tells (root only).

The message is struct cn_msg + struct proc_event (include/uapi/linux/cn_proc.h). SIGKILL comes first, before any
wiping: the design's measurement says why. A race remains, and the threat model says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

NETLINK_CONNECTOR = 11
CN_IDX_PROC = 1
CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1
PROC_EVENT_PTRACE = 0x00000100
NLMSG_DONE = 3
SO_ATTACH_FILTER = 26
_NLMSGHDR = struct.Struct("=IHHII")
_CN_MSG = struct.Struct("=IIIIHH")
_WHAT_AT = _NLMSGHDR.size + _CN_MSG.size
# struct proc_event: what, cpu, timestamp_ns, then struct ptrace_proc_event.
_PTRACE = struct.Struct("=IIQiiii")
assert _NLMSGHDR.size == 16
assert _CN_MSG.size == 20
assert _PTRACE.size == 32


def _only_ptrace(sock: socket.socket) -> None:
    """A classic BPF filter in the kernel, so that forks and exits of a busy machine do not wake this thread."""
    # ld [36]; jeq PTRACE (as big endian reads it), 0, 1; ret -1; ret 0
    big_endian = struct.unpack(">I", struct.pack("=I", PROC_EVENT_PTRACE))[0]
    code = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (0x20, 0, 0, _WHAT_AT),
            (0x15, 0, 1, big_endian),
            (0x06, 0, 0, 0xFFFFFFFF),
            (0x06, 0, 0, 0),
        )
    )
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@dataclass
class _Protected:
    pidfd: int
    injected: bool = False
    """The one attach of the injector has been seen."""


class Watch:
    """One thread that listens. ``available`` says whether the kernel lets it; ``killed`` counts."""

    def __init__(self, foreign: Callable[[int, int], bool]) -> None:
        """``foreign(process, tracer)``: whether the tracer is known to be no injector of ours."""
        self._foreign = foreign
        self._protected: dict[int, _Protected] = {}
        self._lock = threading.Lock()
        self.killed = 0
        self.available = False
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR
            )
        except OSError:
            return
        try:
            _only_ptrace(self._socket)
            self._socket.bind((0, CN_IDX_PROC))
            body = struct.pack("=I", PROC_CN_MCAST_LISTEN)
            message = _CN_MSG.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(body), 0) + body
            self._socket.send(
                _NLMSGHDR.pack(_NLMSGHDR.size + len(message), NLMSG_DONE, 0, 0, os.getpid()) + message
            )
        except OSError:
            self._socket.close()
            return
        self.available = True
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Stop listening (nothing where it never began)."""
        if self.available:
            self.available = False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def protect(self, pid: int, pidfd: int) -> None:
        """Kill the process (thread group ``pid``) when somebody attaches. ``pidfd`` stays the caller's.

        To be called before the injector starts: it traces too, once, and may be gone when its event is read here.
        So the first attach may be its own. Where a debugger was first, the injector is refused or is the second
        and is killed: no enclave starts.
        """
        with self._lock:
            self._protected[pid] = _Protected(pidfd)

    def release(self, pid: int) -> None:
        """Before its pidfd is closed."""
        with self._lock:
            self._protected.pop(pid, None)

    def _listen(self) -> None:
        while True:
            try:
                data, (sender, _) = self._socket.recvfrom(4096)
            except OSError:
                if not self.available:
                    return
                # ENOBUFS: events were lost. Whether one was ours cannot be told: go on listening.
                continue
            if sender != 0 or len(data) < _WHAT_AT + _PTRACE.size:  # the kernel is port 0
                continue
            what, _, _, _, process, _, tracer = _PTRACE.unpack_from(data, _WHAT_AT)
            if what != PROC_EVENT_PTRACE or tracer == 0:
                continue
            with self._lock:
                target = self._protected.get(process)
                if target is None:
                    continue
                if not target.injected and not self._foreign(process, tracer):
                    target.injected = True
                    continue
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(target.pidfd, signal.SIGKILL)
                    self.killed += 1
