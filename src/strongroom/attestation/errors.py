"""Why a quote is refused: one class a reason, each with a short ``reason`` for programs."""

from __future__ import annotations

from typing import ClassVar

from strongroom.errors import StrongroomError


class VerificationError(StrongroomError):
    """The quote is refused."""

    reason: ClassVar[str] = "refused"


class MalformedQuote(VerificationError):
    """The bytes are not an ECDSA quote, version 3, of an SGX enclave."""

    reason = "malformed-quote"


class AlteredQuote(VerificationError):
    """A signature or hash within the quote does not hold: it was changed after it was made."""

    reason = "altered-quote"


class UnnamedRoot(VerificationError):
    """The quote or the collateral chains to a root that the caller did not name."""

    reason = "unnamed-root"


class BadCollateral(VerificationError):
    """The collateral cannot be read, or a signature on it does not hold."""

    reason = "bad-collateral"


class CollateralMismatch(VerificationError):
    """The collateral is of another platform family than the quote."""

    reason = "collateral-mismatch"


class CollateralExpired(VerificationError):
    """The time asked about lies after the collateral's or a certificate's last date."""

    reason = "expired-collateral"


class CollateralNotYetValid(VerificationError):
    """The time asked about lies before the collateral's or a certificate's first date."""

    reason = "collateral-not-yet-valid"


class RevokedPlatform(VerificationError):
    """A certificate of the chain is revoked, or the TCB status is ``Revoked``."""

    reason = "revoked"


class PolicyError(VerificationError):
    """The quote is genuine, and not what the policy asks for."""

    reason = "policy"


class WrongEnclave(PolicyError):
    """MRENCLAVE or MRSIGNER is not among those named."""

    reason = "wrong-enclave"


class WrongProduct(PolicyError):
    """ISVPRODID is another."""

    reason = "wrong-product"


class OldSvn(PolicyError):
    """ISVSVN is lower than asked for."""

    reason = "old-svn"


class DebugEnclave(PolicyError):
    """The enclave is open to debuggers."""

    reason = "debug-enclave"


class ExecPackage(PolicyError):
    """The quote is from an ``exec`` package, whose enclaves share their process with the host program."""

    reason = "exec-package"


class LevelRefused(PolicyError):
    """The quote is from a machine at a level that the policy does not accept."""

    reason = "level"


class TcbStatusRefused(PolicyError):
    """The platform's TCB status, or an advisory, is not among those accepted."""

    reason = "tcb-status"


class ReplayedQuote(PolicyError):
    """The report data is not that of this challenge: the quote was made for another one."""

    reason = "replayed-quote"
