"""What an owner asks of a genuine quote: small objects that compose. What weakens the outcome is named Unsafe.

``Strict`` is where to begin: not debug, from ``run``, level ``sealed``, TCB ``UpToDate``. It names no enclave: add
``MrEnclave``, or ``Signer`` with ``Product`` and ``MinSvn``.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.attestation.errors import (
    DebugEnclave,
    ExecPackage,
    LevelRefused,
    OldSvn,
    ReplayedQuote,
    RevokedPlatform,
    TcbStatusRefused,
    WrongEnclave,
    WrongProduct,
)
from strongroom.isa.flags import Attributes
from strongroom.isa.software_tcb import ADVISORY_EXEC, LEVEL_ADVISORY, Level

if TYPE_CHECKING:
    from strongroom.attestation.verify import Verified


class Policy(Protocol):
    """Raises a PolicyError where ``verified`` is not acceptable."""

    def check(self, verified: Verified) -> None:
        """Raise, or return."""


@dataclass(frozen=True)
class AllOf:
    """Every part must hold; the first that does not gives the reason."""

    parts: tuple[Policy, ...]

    def __init__(self, *parts: Policy) -> None:
        if not parts:
            raise ValueError("AllOf of nothing would accept everything")
        object.__setattr__(self, "parts", parts)

    def check(self, verified: Verified) -> None:
        """See Policy."""
        for part in self.parts:
            part.check(verified)


@dataclass(frozen=True)
class MrEnclave:
    """The enclave's measurement is one of these (32 bytes each)."""

    accepted: frozenset[bytes]

    def __init__(self, *accepted: bytes) -> None:
        object.__setattr__(self, "accepted", _hashes(accepted, "MRENCLAVE"))

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.report.mrenclave not in self.accepted:
            raise WrongEnclave(
                f"this is another enclave (MRENCLAVE {verified.report.mrenclave.hex()})",
                "name it in the policy if you agree with what it does",
            )


@dataclass(frozen=True)
class Signer:
    """The enclave's signer is one of these (MRSIGNER, 32 bytes each)."""

    accepted: frozenset[bytes]

    def __init__(self, *accepted: bytes) -> None:
        object.__setattr__(self, "accepted", _hashes(accepted, "MRSIGNER"))

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.report.mrsigner not in self.accepted:
            raise WrongEnclave(
                f"this enclave is signed by another (MRSIGNER {verified.report.mrsigner.hex()})",
                "name the signer in the policy if you agree with it",
            )


def _hashes(values: Iterable[bytes], what: str) -> frozenset[bytes]:
    found = frozenset(values)
    if not found or any(len(value) != 32 for value in found):
        raise ValueError(f"{what} is 32 bytes, and at least one must be named")
    return found


@dataclass(frozen=True)
class Product:
    """ISVPRODID is this one."""

    product: int

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.report.isv_prod_id != self.product:
            raise WrongProduct(f"the enclave is product {verified.report.isv_prod_id}, not {self.product}")


@dataclass(frozen=True)
class MinSvn:
    """ISVSVN is at least this."""

    svn: int

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.report.isv_svn < self.svn:
            raise OldSvn(
                f"the enclave's SVN is {verified.report.isv_svn}, lower than {self.svn}",
                "use a build with the security fixes",
            )


@dataclass(frozen=True)
class NotDebug:
    """The enclave is a production enclave."""

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.report.attributes & Attributes.DEBUG:
            raise DebugEnclave("this is a debug enclave, open to any debugger", "build it with debug = false")


@dataclass(frozen=True)
class FromRun:
    """The quote is not from an ``exec`` package. Holds for hardware."""

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.kind == "exec" or ADVISORY_EXEC in verified.advisory_ids:
            raise ExecPackage(
                "the enclave was started by `strongroom exec`, within its host program's process",
                "start it by `strongroom run`",
            )


@dataclass(frozen=True)
class AtLevel:
    """A software machine was at one of these levels. Holds for hardware."""

    accepted: frozenset[Level] = frozenset({"sealed"})

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.level is not None and verified.level not in self.accepted:
            raise LevelRefused(
                f"the machine is at level {verified.level}, the policy accepts {', '.join(sorted(self.accepted))}",
                "see `strongroom doctor`, or accept that level by name",
            )


@dataclass(frozen=True)
class TcbStatus:
    """The TCB status is one of these. Advisories that only name the level of a software machine are AtLevel's to judge,
    and so is the status ``ConfigurationNeeded`` where they alone cause it; likewise the ``exec`` one is FromRun's."""

    accepted: frozenset[str] = frozenset({"UpToDate"})

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if verified.tcb_status == "Revoked":
            raise RevokedPlatform("the platform's TCB is revoked")
        if verified.tcb_status in self.accepted:
            return
        ours = {ADVISORY_EXEC, *(name for name in LEVEL_ADVISORY.values() if name)}
        explained = verified.kind is not None and set(verified.advisory_ids) <= ours and verified.advisory_ids
        if verified.tcb_status == "ConfigurationNeeded" and explained:
            return
        advisories = f" ({', '.join(verified.advisory_ids)})" if verified.advisory_ids else ""
        raise TcbStatusRefused(
            f"the platform's TCB status is {verified.tcb_status}{advisories}",
            "update it, or accept that status by name",
        )


@dataclass(frozen=True)
class ReportDataIs:
    """The report data (64 bytes) is exactly this: binds the quote to one challenge and one key."""

    expected: bytes

    def check(self, verified: Verified) -> None:
        """See Policy."""
        if not hmac.compare_digest(verified.report.report_data, self.expected):
            raise ReplayedQuote(
                "the quote was made for another challenge or another key",
                "ask for a challenge and quote anew",
            )


@dataclass(frozen=True)
class Strict:
    """Not debug, from ``run``, at one of ``levels``, TCB status one of ``statuses``; every default the strictest."""

    levels: frozenset[Level] = frozenset({"sealed"})
    statuses: frozenset[str] = frozenset({"UpToDate"})

    def check(self, verified: Verified) -> None:
        """See Policy."""
        for part in (NotDebug(), FromRun(), AtLevel(self.levels), TcbStatus(self.statuses)):
            part.check(verified)


@dataclass(frozen=True)
class UnsafeAnything:
    """Accepts every genuine quote (debug enclaves are refused before): to look at one, never to hand out a key."""

    def check(self, verified: Verified) -> None:
        """See Policy."""
