"""The daemon's end of the spawner: started, asked, and started anew where somebody killed it."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from strongroom.errors import StrongroomError
from strongroom.machine import protocol
from strongroom.machine.protocol import Message

START_SECONDS = 10.0
log = logging.getLogger("strongroom.daemon")


class SpawnerGone(StrongroomError):
    """The process that starts programs died and none could be started in its place."""


class Spawner:
    """Keeps one spawner process.

    One thread makes them all and lives as long as the daemon: the kernel sends a spawner its parent-death signal when
    the *thread* that made it ends (prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(self, open_files: tuple[int, int] | None = None) -> None:
        """``open_files``: RLIMIT_NOFILE for the spawner, hence for the programs; None: as this process has it."""
        self._open_files = open_files
        self._ready = threading.Condition()
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def __call__(self, message: Message, descriptors: Sequence[int]) -> None:
        """Ask for a program to be started. Raises SpawnerGone, ProtocolError."""
        for _ in range(3):
            with self._ready:
                if not self._ready.wait_for(lambda: self._sock is not None or self._ended, START_SECONDS):
                    break
                sock = self._sock
                if sock is None:
                    break
                try:
                    protocol.send(sock, message, descriptors)
                    return
                except protocol.Closed:  # it was killed; the keeper is about to notice
                    if self._sock is sock:
                        self._sock = None
        raise SpawnerGone("the process that starts programs is gone", "see daemon.log and try again")

    def close(self) -> None:
        """End it, and wait until it is gone."""
        with self._ready:
            self._ended = True
            if self._sock is not None:
                self._sock.close()
                self._sock = None
            process = self._process
            self._ready.notify_all()
        if process is not None:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()

    def _keep(self) -> None:
        while not self._ended:
            try:
                sock, process = self._start()
            except (OSError, subprocess.SubprocessError):
                log.exception("the spawner could not be started")
                time.sleep(0.2)
                continue
            with self._ready:
                if self._ended:
                    sock.close()
                else:
                    self._sock, self._process = sock, process
                    self._ready.notify_all()
            process.wait()
            with self._ready:
                if not self._ended:
                    log.warning("the spawner ended (%s): another takes its place", process.returncode)
                if self._sock is sock:
                    self._sock = None
            sock.close()

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                # Large enough for a message of the greatest size.
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * protocol.MAX_MESSAGE)
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "strongroom.vm.spawner", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        if self._open_files is not None:
            with contextlib.suppress(OSError):
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, self._open_files)
        return ours, process
