"""The daemon's clients: find it, start it on first need, shake hands."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import strongroom
from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.machine import protocol
from strongroom.machine.protocol import Message
from strongroom.machine.waiting import readable

START_SECONDS = 30.0
REPLY_SECONDS = 60.0
# Started by name: the composition of the daemon lies above this folder (design: Layout).
_DAEMON_MODULE = "strongroom.vm.host"
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")


class NoDaemon(StrongroomError):
    """No daemon runs, or none could be started."""


class Connection:
    """One request to the daemon and what follows from it. Use as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def request(self, operation: str, fields: Message | None = None, descriptors: Sequence[int] = ()) -> None:
        """Send the request. Raises Closed, ProtocolError, RemoteError where it was refused unheard."""
        head = {"op": operation, "version": strongroom.__version__, "protocol": protocol.PROTOCOL}
        with _the_daemon():
            try:
                protocol.send(self.sock, {**(fields or {}), **head}, descriptors)
            except protocol.Closed:
                protocol.raise_remote(protocol.receive(self.sock)[0])  # it may have said why before it went
                raise

    def say(self, message: Message) -> None:
        """Send what follows the request. Raises Closed."""
        with _the_daemon():
            protocol.send(self.sock, message)

    def reply(self, timeout: float | None = REPLY_SECONDS) -> tuple[Message, list[int]]:
        """The next message. Raises RemoteError where it is a refusal, Closed, ProtocolError."""
        self.sock.settimeout(timeout)
        with _the_daemon():
            message, descriptors = protocol.receive(self.sock)
        try:
            protocol.raise_remote(message)
        except StrongroomError:
            protocol.close_all(descriptors)
            raise
        return message, descriptors

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _the_daemon() -> Iterator[None]:
    """Say who went away, and where its last words are."""
    try:
        yield
    except protocol.Closed as error:
        said = error.message.replace("the peer", "the daemon")
        raise protocol.Closed(
            said, f"try again; its last words are in {paths.home() / 'daemon.log'}"
        ) from error


def _connect_once(directory: Path) -> Connection | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(os.fspath(directory / protocol.SOCKET_NAME))
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BlockingIOError):
        sock.close()
        return None
    except OSError:
        sock.close()
        raise
    if uid != os.geteuid():
        sock.close()
        raise NoDaemon(
            "another user answers in the daemon's place", "set STRONGROOM_HOME to a folder of yours"
        )
    return Connection(sock)


def connect(*, start: bool = True) -> Connection:
    """A connection for one request. Starts the daemon where none runs, unless told not to. Raises NoDaemon."""
    directory = paths.socket_directory()
    connection = _connect_once(directory)
    if connection is not None:
        return connection
    if not start:
        raise NoDaemon("no daemon runs", "it starts by itself with the first `strongroom run`")
    deadline = time.monotonic() + START_SECONDS
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        process = _start(write)
        while time.monotonic() < deadline:
            connection = _connect_once(directory)
            if connection is not None:
                return connection
            status = _ended(process)
            if status:
                raise _reason(read)
            if status == 0:  # another daemon was first, and serves soon, or fails as well
                time.sleep(0.5)
                process = _start(write)
            time.sleep(0.01)
    finally:
        os.close(read)
        os.close(write)
    raise NoDaemon("the daemon did not start", f"see {paths.home() / 'daemon.log'}")


def _reason(read: int) -> StrongroomError:
    """What a daemon that ended at once had to say."""
    try:
        protocol.raise_remote(protocol.parse(os.read(read, protocol.MAX_REASON)))
    except protocol.RemoteError as error:
        return NoDaemon(error.message, error.next_step)
    except (OSError, StrongroomError):
        pass
    return NoDaemon("the daemon did not start", f"see {paths.home() / 'daemon.log'}")


def _start(reason: int) -> int:
    """Start the daemon in a session of its own; its words go to daemon.log, what keeps it from starting to ``reason``.
    Returns its process id."""
    package_parent = os.fspath(Path(strongroom.__file__).resolve().parent.parent)
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("STRONGROOM_")}
    given = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([package_parent, *given]))
    environment["STRONGROOM_HOME"] = os.fspath(paths.home())
    environment.pop("STRONGROOM_LEVEL", None)  # each request names its own
    log = os.fspath(paths.ensure_home() / "daemon.log")
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", _DAEMON_MODULE, "3"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reason, 3),  # first: it may be one of those opened next
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _ended(process: int) -> int | None:
    """The wait status of the started process once it has ended (0: another daemon was first), else None."""
    try:
        ended, status = os.waitpid(process, os.WNOHANG)
    except ChildProcessError:
        return None  # somebody else waits for this program's children
    return status if ended == process else None


def ask(operation: str, fields: Message | None = None, *, start: bool = True) -> Message:
    """One request, one reply. Raises NoDaemon, RemoteError, Closed."""
    for attempt in range(3):
        with connect(start=start) as connection:
            try:
                connection.request(operation, fields)
                message, descriptors = connection.reply()
            except protocol.Closed:
                if attempt < 2:  # it was about to end, being idle
                    time.sleep(0.05)
                    continue
                raise
            protocol.close_all(descriptors)
            return message
    raise NoDaemon("the daemon ends", "try again")


def stop_daemon() -> int:
    """End the daemon of any version and wait until it is gone; returns how many runs it ended. Raises NoDaemon."""
    pid = ask("status", start=False).get("pid")
    gone: int | None = None
    if isinstance(pid, int) and pid > 0:
        try:
            gone = os.pidfd_open(pid)
        except ProcessLookupError:
            return 0
    try:
        ended = ask("stop", start=False).get("ended")
        if gone is not None:
            readable([gone], 15)
    finally:
        if gone is not None:
            os.close(gone)
    return ended if isinstance(ended, int) else 0
