"""The host part's side of an enclave: call the functions that the enclave part exports.

>>> with Enclave("examples/records", vm="clinic") as box:      # doctest: +SKIP
...     answer = box.score(records)
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from strongroom.errors import StrongroomError
from strongroom.inside import codec
from strongroom.inside.calls import VERSION
from strongroom.inside.errors import CodecError

START_SECONDS = 120.0
END_SECONDS = 10.0
STARTING = "its start"
NOTHING_EXPORTED = (
    "it ran to its end; what is called or quoted has to export a function (strongroom.inside.export)"
)


class EnclaveError(StrongroomError):
    """A function inside raised: ``kind`` is the exception's type, ``text`` its text; no more than that comes out."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"inside the enclave: {kind}{': ' if text else ''}{text}")
        self.kind = kind
        self.text = text


class EnclaveLost(StrongroomError):
    """The enclave is gone: its process ended, or it was disabled. ``status`` is the exit status where it is known."""

    def __init__(self, message: str, next_step: str, status: int | None = None) -> None:
        super().__init__(message, next_step)
        self.status = status


class Handle(Protocol):
    """What the launcher answers (``strongroom.machine.launch.Spawned``)."""

    level: str
    vm: str
    mrenclave: bytes

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status, or None when the time is up."""

    def close(self) -> None:
        """End it."""


class Start(Protocol):
    """Starts the image at a path with the enclave's end of a channel."""

    def __call__(self, path: Path, vm: str, arguments: Sequence[str], channel: socket.socket) -> Handle:
        """See ``strongroom.machine.launch.spawn``."""


def _spawn(path: Path, vm: str, arguments: Sequence[str], channel: socket.socket) -> Handle:
    from strongroom.machine import (
        launch,
    )  # late: a host program pays for the launcher when it starts an enclave

    return launch.spawn(path, vm, arguments, channel=channel)


class Enclave:
    """A running enclave; its exported functions are attributes. Use as a context manager.

    Calls cross one at a time, from any thread. Arguments and results are None, bool, int, float, str, bytes,
    list and dict.
    """

    def __init__(
        self,
        path: str | Path,
        vm: str = "default",
        arguments: Sequence[str] = (),
        *,
        timeout: float | None = None,
        start: Start = _spawn,
    ) -> None:
        """``path`` is the project (built) or its build folder. ``timeout`` is seconds a call, None to wait."""
        self._path = Path(path)
        self._vm = vm
        self._arguments = list(arguments)
        self._timeout = timeout
        self._start = start
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._handle: Handle | None = None
        self._names: frozenset[str] = frozenset()
        self._number = 0
        self._lost: EnclaveLost | None = None

    def start(self) -> Self:
        """Start it and wait until its module body has run. Raises StrongroomError; EnclaveLost where it ended."""
        if self._socket is not None:
            raise StrongroomError("this enclave runs already", "use it, or make another")
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._handle = self._start(self._path, self._vm, self._arguments, theirs)
            self._socket = ours
            ours.settimeout(START_SECONDS)
            hello = self._receive(STARTING)
            ours.settimeout(self._timeout)
            match hello:
                case ["hello", version, list(names)] if version == VERSION:
                    self._names = frozenset(name for name in names if isinstance(name, str))
                case _:
                    raise self._lose("the enclave speaks another version of the protocol", "build it again")
        except BaseException:
            ours.close()
            self.close()
            raise
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel, which ends the enclave, and wait for its end. Does nothing the second time."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._handle is not None:
            handle, self._handle = self._handle, None
            try:
                handle.wait(END_SECONDS if self._lost is None else 0)
            except StrongroomError:
                pass  # it is gone either way
            finally:
                handle.close()

    @property
    def exports(self) -> frozenset[str]:
        """Names of the functions that can be called."""
        return self._names

    @property
    def facts(self) -> dict[str, str]:
        """Level, VM and MRENCLAVE as the machine gave them; a quote is what proves them."""
        if self._handle is None:
            return {}
        return {
            "level": self._handle.level,
            "vm": self._handle.vm,
            "mrenclave": self._handle.mrenclave.hex(),
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._socket is not None and name not in self._names:
            known = ", ".join(sorted(self._names)) or "nothing"
            raise AttributeError(f"the enclave exports no {name!r} (it exports {known})")

        def call(*arguments: Any, **named: Any) -> Any:
            return self._ask(["call", None, name, list(arguments), named], f"{name}()")

        call.__name__ = name
        return call

    def quote(self, data: bytes = b"") -> bytes:
        """A quote of the enclave for ``data`` (report data is ``strongroom.inside.binding.host_report_data(data)``)."""
        answer = self._ask(["quote", None, bytes(data)], "quote")
        if not isinstance(answer, bytes):
            raise self._lose("the enclave did not answer with a quote", "build it again")
        return answer

    def _ask(self, message: list[Any], what: str) -> Any:
        with self._lock:
            if self._lost is not None:
                raise EnclaveLost(self._lost.message, self._lost.next_step, self._lost.status)
            if self._socket is None:
                raise StrongroomError("this enclave does not run", "use it in a `with` block")
            self._number += 1
            message[1] = number = self._number
            data = _frame(message)
            try:
                self._socket.sendall(data)
            except TimeoutError:
                raise self._lose(
                    f"{what} was not taken in time", "raise `timeout`, or find out what it waits for"
                ) from None
            except OSError:
                raise self._ended(what) from None
            match self._receive(what):
                case ["ok", answered, value] if answered == number:
                    return value
                case ["error", answered, str(kind), str(text)] if answered == number:
                    raise EnclaveError(kind, text)
                case _:
                    raise self._lose("the enclave's answer is not one of the protocol", "build it again")

    def _receive(self, what: str) -> Any:
        assert self._socket is not None
        try:
            more, value = codec.read_frame(self._socket.recv)
        except TimeoutError:
            raise self._lose(
                f"{what} took too long", "raise `timeout`, or find out what it waits for"
            ) from None
        except OSError:
            raise self._ended(what) from None
        except CodecError as error:
            raise self._ended(what, str(error)) from None
        if not more:
            raise self._ended(what)
        return value

    def _lose(self, message: str, next_step: str, status: int | None = None) -> EnclaveLost:
        self._lost = EnclaveLost(message, next_step, status)
        if self._socket is not None:
            self._socket.close()
        return self._lost

    def _ended(self, what: str, detail: str = "") -> EnclaveLost:
        status: int | None = None
        if self._handle is not None:
            try:
                status = self._handle.wait(END_SECONDS)
            except StrongroomError as error:
                detail = detail or error.message
        how = f"with exit status {status}" if status is not None else "and no exit status came"
        return self._lose(
            f"the enclave ended during {what}, {how}{f' ({detail})' if detail else ''}",
            NOTHING_EXPORTED
            if status == 0 and what == STARTING
            else "see what it wrote to standard error, and start it again",
            status,
        )


def _frame(message: list[Any]) -> bytes:
    """A frame of ``message``. Raises TypeError for arguments that cannot cross."""
    try:
        return codec.frame(message)
    except CodecError as error:
        raise TypeError(str(error)) from None
