"""Lines to a VM's ``exec`` package for the programs that a program executes (native/inject/follow.c asks for them)."""

from __future__ import annotations

import array
import contextlib
import socket

from strongroom.errors import StrongroomError
from strongroom.machine import client, protocol


class Lines:
    """``theirs`` goes to the injector. ``serve()`` after one of ``filenos()`` is readable. Use as a context manager."""

    def __init__(self, vm: str) -> None:
        self._vm = vm
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(5)
        self._connections: dict[int, client.Connection] = {}
        self.usages: list[protocol.Message] = []
        """What each program whose line ended did with the EPC."""

    def filenos(self) -> list[int]:
        return [self._ours.fileno(), *self._connections]

    def serve(self, ready: set[int]) -> None:
        """One request for a line; connections whose line has ended are closed."""
        for number in [number for number in ready if number in self._connections]:
            self._end(self._connections.pop(number))
        if self._ours.fileno() not in ready:
            return
        try:
            asked = self._ours.recv(16)
        except OSError:
            return
        if not asked:  # no injector is left: nobody will ask again
            self._ours.close()
            self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            return
        descriptors: list[int] = []
        try:
            connection = client.connect(start=False)
            connection.request("exec", {"vm": self._vm, "follow": 1})
            _, descriptors = connection.reply(60.0)
            self._connections[connection.sock.fileno()] = connection
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors[:2]))]
            self._ours.sendmsg([b"l"], rights)
        except (StrongroomError, OSError):
            with contextlib.suppress(OSError):
                self._ours.send(b"n")
        finally:
            protocol.close_all(descriptors)

    def _end(self, connection: client.Connection) -> None:
        with contextlib.suppress(StrongroomError, OSError), connection:
            self.usages.append(last_words(connection))

    def close(self) -> None:
        for connection in self._connections.values():
            self._end(connection)
        self._connections.clear()
        self._ours.close()
        self.theirs.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_words(connection: client.Connection) -> protocol.Message:
    """Say that a line's program has ended; what it did with the EPC. Raises Closed, OSError."""
    with contextlib.suppress(OSError):
        connection.sock.shutdown(socket.SHUT_WR)
    message, descriptors = connection.reply(5.0)
    protocol.close_all(descriptors)
    return message
