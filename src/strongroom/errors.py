"""The roots of every error of ours. A text says what happened; ``next_step`` says what to do."""

from __future__ import annotations


class StrongroomError(Exception):
    """Something failed for a reason that a user can act upon.

    ``next_step`` is one imperative sentence, or empty where the message says it already.
    """

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}: {self.next_step}" if self.next_step else self.message


class UsageError(StrongroomError):
    """The caller's words are off (exit status 2 on the command line)."""


class FormatError(StrongroomError):
    """Bytes that somebody else wrote do not have the form they claim."""
