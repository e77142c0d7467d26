"""Threads of the daemon. ``threading.Thread.start`` waits until its thread runs, which for one that dies of MemoryError
before its first line is for ever; these do not wait."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any

JOIN_SECONDS = 10.0


class Worker:
    """A thread that runs ``target`` from now on and does not keep the process alive.

    Raises RuntimeError where the process may have no more threads. Where there is no memory for its first line it
    ends without a word, and what was given to it is freed.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._ended = threading.Lock()
        self._ended.acquire()
        _thread.start_new_thread(_run, (self._ended, target, arguments))

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._ended.locked()

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Until it has ended, or ``seconds`` have passed."""
        if self._ended.acquire(timeout=seconds):
            self._ended.release()


def _run(ended: threading.Lock, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        target(*arguments)
    finally:
        ended.release()
