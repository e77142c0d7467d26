"""Messages between the daemon and its clients: JSON with descriptors, one message a packet.

SOCK_SEQPACKET keeps the messages apart. Whoever sends is taken for hostile: size, count of descriptors, JSON and the
type and length of every field are checked here; what does not fit raises ProtocolError and its descriptors are closed.
"""

from __future__ import annotations

import array
import json
import os
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from strongroom.errors import StrongroomError

PROTOCOL = 1
MAX_MESSAGE = 128 * 1024
MAX_DESCRIPTORS = 32
MAX_STRINGS = 4096
MAX_REASON = 4096
"""Of the one message that a daemon which cannot start leaves for the command that started it."""
SOCKET_NAME = "daemon.sock"
_VM_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")

Message = dict[str, Any]


class ProtocolError(StrongroomError):
    """The peer's message is malformed."""


class Closed(StrongroomError):
    """The peer went away."""


class RemoteError(StrongroomError):
    """The daemon refused; ``kind`` is the name of its error class."""

    def __init__(self, kind: str, message: str, next_step: str) -> None:
        super().__init__(message, next_step)
        self.kind = kind


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises Closed where nobody listens, ProtocolError where it is too long."""
    data = json.dumps(message, separators=(",", ":")).encode("utf-8", "surrogateescape")
    if len(data) > MAX_MESSAGE:
        raise ProtocolError("the request is too long", "pass shorter arguments")
    ancillary = []
    if descriptors:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
    except TimeoutError as error:
        raise Closed("the peer does not answer", "try again") from error
    except OSError as error:
        raise Closed(f"the peer went away ({error.strerror})") from error


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """Receive one message and its descriptors (close-on-exec, the caller's). Raises Closed, ProtocolError."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    try:
        data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE + 1, space, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as error:
        raise Closed("the peer does not answer", "try again") from error
    except OSError as error:
        raise Closed(f"the peer went away ({error.strerror})") from error
    descriptors: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            descriptors.extend(numbers)
    try:
        if not data:
            raise Closed("the peer went away")
        if flags & socket.MSG_TRUNC or len(data) > MAX_MESSAGE:
            raise ProtocolError("a message is too long")
        if (
            flags & socket.MSG_CTRUNC
        ):  # more than MAX_DESCRIPTORS, or the receiver may open no more (RLIMIT_NOFILE)
            raise ProtocolError(
                "not all descriptors of a message arrived",
                "raise the limit of open files (ulimit -n), try again",
            )
        return parse(data), descriptors
    except StrongroomError:
        close_all(descriptors)
        raise


def parse(data: bytes) -> Message:
    """The JSON object in ``data``. Raises ProtocolError for anything else."""
    try:
        message = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a message is not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("a message is not a JSON object")
    return message


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


def error_message(error: StrongroomError) -> Message:
    return {"error": {"kind": type(error).__name__, "message": error.message, "next_step": error.next_step}}


def raise_remote(message: Message) -> None:
    """Raise RemoteError where the message is a refusal."""
    error = message.get("error")
    if error is None:
        return
    if not isinstance(error, dict):
        raise ProtocolError("a message's error is malformed")
    words = [error.get(key) for key in ("kind", "message", "next_step")]
    raise RemoteError(*(word if isinstance(word, str) else "" for word in words))


def text(message: Message, key: str, longest: int = 4096, default: str | None = None) -> str:
    """A string field without NUL. Raises ProtocolError."""
    value = message.get(key, default)
    if not _is_word(value) or len(value) > longest:
        raise ProtocolError(f"field {key} is not a string of at most {longest} characters")
    return value


def number(message: Message, key: str, low: int, high: int, default: int | None = None) -> int:
    """An integer field in [low, high]. Raises ProtocolError."""
    value = message.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ProtocolError(f"field {key} is not a number from {low} to {high}")
    return value


def strings(message: Message, key: str, most: int = MAX_STRINGS) -> list[str]:
    """A list of strings without NUL (empty where missing). Raises ProtocolError."""
    value = message.get(key, [])
    if not isinstance(value, list) or len(value) > most:
        raise ProtocolError(f"field {key} is not a list of at most {most} strings")
    for item in value:
        if not _is_word(item):
            raise ProtocolError(f"field {key} holds something that is not a string")
    return value


def _is_word(value: object) -> TypeGuard[str]:
    """Whether a program can be given it: without NUL, and what bytes were decoded to."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def vm_name(message: Message) -> str:
    """The field ``vm``. Raises ProtocolError."""
    name = text(message, "vm", 64)
    if not _VM_NAME.fullmatch(name):
        raise ProtocolError("field vm is no VM name")
    return name
