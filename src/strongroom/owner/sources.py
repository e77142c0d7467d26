"""Where an owner's collateral comes from: a file, or the software PKI of this installation."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Protocol

from strongroom.attestation.collateral import Collateral
from strongroom.attestation.errors import MalformedQuote, UnnamedRoot
from strongroom.attestation.judge import judge
from strongroom.isa.software_tcb import kind_of


class Source(Protocol):
    """Answers the collateral for a quote."""

    def __call__(self, quote: bytes, at: datetime) -> Collateral:
        """Raises VerificationError."""


class FromFile:
    """Always the one in a file, read once."""

    def __init__(self, path: Path) -> None:
        self._collateral = Collateral.load(path)

    def __call__(self, quote: bytes, at: datetime) -> Collateral:
        """See Source."""
        return self._collateral


class FromSoftwarePki:
    """Made for the quote's platform family by the installation at ``home``, as Intel's service would answer."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, quote: bytes, at: datetime) -> Collateral:
        """See Source."""
        from strongroom.machine import pki

        kind = kind_of(fmspc_of(quote))
        if kind is None:
            raise UnnamedRoot(
                "the quote is not from a software platform", "name its root and give its collateral in a file"
            )
        return Collateral.from_json(pki.collateral_json(self._home, kind, at))


def fmspc_of(quote: bytes) -> bytes:
    """The platform family that the quote's PCK certificate names (6 bytes). Raises MalformedQuote."""
    try:
        return bytes.fromhex(judge().parse_quote(quote).fmspc())
    except ValueError:
        raise MalformedQuote("the quote names no platform family", "get it again") from None
    except BaseException as error:  # a panic of the foreign library
        if type(error).__name__ != "PanicException":
            raise
        raise MalformedQuote("the quote names no platform family", "get it again") from None
