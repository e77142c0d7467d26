"""The per-user daemon's frame: one socket, one thread a client, a handshake, an end when idle.

What it can do is given to it as a table of operations (``strongroom.vm.host`` fills it): this file knows sockets only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.machine import protocol
from strongroom.machine.protocol import Message
from strongroom.machine.threads import Worker
from strongroom.machine.waiting import readable

MAX_CLIENTS = 128
HELLO_SECONDS = 5.0
LACKING_SECONDS = 0.05
"""For the request of a client that the accepting thread itself answers: others wait meanwhile."""
LOOK_SECONDS = 5.0
ROOM_BYTES = 32 << 20
"""What a client's thread may map at its start: stack, the allocator's areas."""
# Operations that a client may ask for whatever else is wrong (another version, no memory): to look, and to end it.
ANY_VERSION = frozenset({"status", "stop"})
log = logging.getLogger("strongroom.daemon")

# (client's socket, request, its descriptors) -> None; replies by protocol.send. Descriptors are closed afterwards.
Operation = Callable[[socket.socket, Message, list[int]], None]


class AlreadyRunning(StrongroomError):
    """Another daemon serves this STRONGROOM_HOME."""


class Server:
    """Listens on ``directory/daemon.sock``, from ``listen`` on. One at a time, by a lock on daemon.lock."""

    def __init__(self, directory: Path, version: str, idle_seconds: float) -> None:
        self._path = directory / protocol.SOCKET_NAME
        self._version = version
        self._operations: dict[str, Operation] = {}
        self._idle_seconds = idle_seconds
        # Counted by the sockets: each is freed with its thread, even one that had no memory to begin.
        self._clients: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._last_use = time.monotonic()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._guard = os.open(directory / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._guard)
            raise AlreadyRunning("a daemon runs already", "see `strongroom daemon status`") from error
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inode = 0

    def listen(self) -> None:
        """Be found by clients, who wait until then: what keeps the daemon from serving is to be known before."""
        self._path.unlink(missing_ok=True)  # a killed daemon's
        before = os.umask(0o177)
        try:
            self._listener.bind(os.fspath(self._path))
        finally:
            os.umask(before)
        self._listener.listen(MAX_CLIENTS)
        self._inode = os.stat(self._path).st_ino

    def offer(self, operations: Mapping[str, Operation]) -> None:
        """What clients may ask for."""
        self._operations.update(operations)

    def serve(self) -> None:
        """Serve until stopped or idle. Removes the socket."""
        try:
            while not self._ending.is_set():
                with self._lock:
                    idle = time.monotonic() - self._last_use if not self._clients else 0.0
                if idle >= self._idle_seconds or self._displaced():
                    return
                wait = min(LOOK_SECONDS, max(0.05, self._idle_seconds - idle))
                ready = readable([self._listener.fileno(), self._wake_read], wait)
                if self._listener.fileno() in ready and not self._ending.is_set():
                    self._accept()
        finally:
            self._ending.set()
            # Unlinked before closed: a client either connects to a listener or finds nothing and starts anew.
            if not self._displaced():
                self._path.unlink(missing_ok=True)
            self._listener.close()

    def stop(self) -> None:
        """End serve() soon. From any thread or a signal handler."""
        self._ending.set()
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")

    def drain(self, seconds: float) -> None:
        """After serve(): until every client has had its last word and is gone, or ``seconds`` have passed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                if not self._clients:
                    return
            time.sleep(0.005)

    def _displaced(self) -> bool:
        """Whether the socket was removed or replaced: nobody can reach this daemon any more."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except OSError:
            return True

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.ECONNABORTED, errno.EAGAIN, errno.EINTR):
                self._turn_away()
            return
        with self._lock:
            full = len(self._clients) >= MAX_CLIENTS
            if not full:
                self._clients.add(client)
        if full:
            self._serve_client(
                client, StrongroomError("the daemon serves too many clients", "wait until some have ended")
            )
            return
        try:
            if not _room():
                raise MemoryError
            Worker(self._serve_client, client)
        except MemoryError:
            self._serve_client(client, _exhausted("memory"))
        except RuntimeError:  # the process may have no more threads
            self._serve_client(client, _exhausted("threads"))

    def _turn_away(self) -> None:
        """No descriptor for one more client: with the spare one it is at least told so, and does not wait."""
        log.warning("no descriptor left for a client")
        os.close(self._spare)
        try:
            client, _ = self._listener.accept()
            self._serve_client(client, _exhausted("descriptors"))
        except OSError:
            time.sleep(0.05)  # another thread was faster: not to spin meanwhile
        finally:
            while True:
                try:
                    self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                    break
                except OSError:
                    time.sleep(0.05)

    @staticmethod
    def _refuse(client: socket.socket, error: StrongroomError) -> None:
        client.settimeout(1.0)
        with contextlib.suppress(StrongroomError):
            protocol.send(client, protocol.error_message(error))

    def _serve_client(self, client: socket.socket, lacking: StrongroomError | None = None) -> None:
        """One client, from its request to its end; where something is lacking for it, on the spot and in short."""
        try:
            with client:
                try:
                    self._handshake_and_serve(client, lacking)
                except protocol.Closed:
                    if lacking:  # it has not asked yet, and is told all the same
                        self._refuse(client, lacking)
                except StrongroomError as error:
                    with contextlib.suppress(OSError):
                        self._refuse(client, error)
        except Exception:
            log.exception("a client's thread failed")
        finally:
            with self._lock:
                self._clients.discard(client)
                self._last_use = time.monotonic()

    def _handshake_and_serve(self, client: socket.socket, lacking: StrongroomError | None) -> None:
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid != os.geteuid():
            self._refuse(
                client, StrongroomError("this daemon serves another user", "use a STRONGROOM_HOME of yours")
            )
            return
        client.settimeout(LACKING_SECONDS if lacking else HELLO_SECONDS)
        request, descriptors = protocol.receive(client)
        try:
            operation = protocol.text(request, "op", 32)
            version = protocol.text(request, "version", 64)
            number = protocol.number(request, "protocol", 0, 2**31)
            agreed = version == self._version and number == protocol.PROTOCOL
            if not agreed and operation not in ANY_VERSION:
                raise VersionMismatch(
                    f"the daemon is version {self._version}, this command is version {version}",
                    "end it with `strongroom daemon stop` and try again",
                )
            if lacking and operation not in ANY_VERSION:
                raise lacking
            action = self._operations.get(operation)
            if action is None:
                raise protocol.ProtocolError(f"the daemon knows no operation {operation!r}")
            try:
                action(client, request, descriptors)
            except StrongroomError as error:
                if not isinstance(error, protocol.Closed):
                    self._refuse(client, error)
            except (OSError, MemoryError, RuntimeError) as error:
                log.exception("operation %s failed", operation)
                self._refuse(client, _failed(error))
        finally:
            protocol.close_all(descriptors)


def _room() -> bool:
    """Whether a thread would find memory: one that does not ends without a word (``Worker``)."""
    try:
        mmap.mmap(-1, ROOM_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


def _exhausted(what: str) -> StrongroomError:
    return StrongroomError(
        f"the daemon has no {what} left",
        "wait until some programs have ended; or `strongroom daemon stop`, and a higher limit (ulimit -a)",
    )


def _failed(error: Exception) -> StrongroomError:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return _exhausted("descriptors")
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return _exhausted("memory")
    if isinstance(error, RuntimeError) or number == errno.EAGAIN:
        return _exhausted("threads or processes")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StrongroomError("the disk is full", "free some space and try again")
    return StrongroomError(f"the daemon failed ({error})", "see its log, daemon.log")


class VersionMismatch(StrongroomError):
    """Client and daemon are of different versions."""
