"""The exported functions and the loop that serves them over the channel. Nothing else of the program can be called.

Enclave to host: ``["hello", 1, [names]]`` once, then an answer a call: ``["ok", id, value]`` or
``["error", id, type, text]``. Host to enclave: ``["call", id, name, [arguments], {named}]`` or ``["quote", id, data]``.
"""

from __future__ import annotations

import os

from strongroom.inside import codec
from strongroom.inside.errors import CodecError

TYPE_CHECKING = False  # importing typing would cost every start 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])

CHANNEL: Final = "/dev/strongroom/channel"
VERSION: Final = 1
MAX_ERROR_SIZE: Final = 1000

RESERVED: Final = frozenset({"close", "exports", "facts", "quote", "start"})
"""Names that the host's ``Enclave`` has for itself."""


class _NotOurProtocol(CodecError):
    """The host's message is none of the protocol's."""


class Exports:
    """The functions that the host may call, by name."""

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}

    def export(self, function: _Function) -> _Function:
        """Let the host call ``function`` by its name. A name that begins with an underscore is refused."""
        name = getattr(function, "__name__", "")
        if not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"{name or function!r} cannot be exported: give it a plain name")
        if name in RESERVED:
            raise ValueError(f"{name!r} is a name of the host's Enclave: give the function another")
        if self.functions.get(name, function) is not function:
            raise ValueError(f"two functions are exported as {name!r}")
        self.functions[name] = function
        return function


_exports = Exports()
export = _exports.export


class Channel:
    """A stream of bytes to the host, by a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        """1 to ``size`` bytes, or none at the end."""
        try:
            return os.read(self._descriptor, size)
        except ConnectionResetError:
            return b""

    def write(self, data: bytes) -> None:
        """All of ``data``. Raises OSError."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def serve(channel: Channel | None = None, exports: Exports | None = None) -> None:
    """Serve the exported functions until the host closes the channel. Without a channel there is nothing to do.

    A frame that is not one of the protocol ends the service with CodecError: nothing after it can be believed.
    """
    table = exports or _exports
    if channel is None:
        try:
            channel = Channel(os.open(CHANNEL, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            return
    try:
        channel.write(codec.frame(["hello", VERSION, sorted(table.functions)]))
        while True:
            more, message = codec.read_frame(channel.read)
            if not more:
                return
            number = message[1] if isinstance(message, list) and len(message) > 1 else None
            if type(number) is not int:
                raise CodecError("the host's message has no number")
            channel.write(_answer(table, number, message))
    except BrokenPipeError:
        return  # the host has gone: nobody is left to answer


def _answer(table: Exports, number: int, message: list[Any]) -> bytes:
    """The frame that answers one message. What the function raises becomes a type and a text."""
    try:
        value = _perform(table, message)
    except (_NotOurProtocol, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return _failure(number, type(error).__name__, _text_of(error))
    try:
        return codec.frame(["ok", number, value])
    except CodecError as error:
        return _failure(number, "TypeError", f"the result of {message[2]}() cannot leave: {error}")


def _perform(table: Exports, message: list[Any]) -> Any:
    match message:
        case ["call", _, str(name), list(arguments), dict(named)]:
            function = table.functions.get(name)
            if function is None:
                raise AttributeError(f"the enclave exports no function {name!r}")
            return function(*arguments, **named)
        case ["quote", _, bytes(data)]:
            from strongroom.inside import binding
            from strongroom.inside.device import Attestation

            return Attestation().quote(binding.host_report_data(data))
        case _:
            raise _NotOurProtocol("the host's message is not one of the protocol")


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    return text.encode("utf-8", "replace").decode()[:MAX_ERROR_SIZE]


def _failure(number: int, kind: str, text: str) -> bytes:
    return codec.frame(["error", number, kind, text])


def has_exports() -> bool:
    """Whether the program exported anything."""
    return bool(_exports.functions)
