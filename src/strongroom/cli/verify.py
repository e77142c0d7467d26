"""``strongroom verify FILE``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli._options import Json
from strongroom.cli._output import print_json
from strongroom.errors import StrongroomError, UsageError

if TYPE_CHECKING:
    from strongroom.attestation.collateral import Collateral
    from strongroom.attestation.roots import Root


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        epilog="Example: `strongroom verify records.quote --root software --collateral records.json`"
    )
    def verify(
        file: Annotated[Path, typer.Argument(help="A DCAP ECDSA quote, version 3.")],
        root: Annotated[
            str,
            typer.Option(
                help="Whose root you believe: intel, software (this installation's), or a PEM file."
            ),
        ] = "intel",
        collateral: Annotated[
            Path | None,
            typer.Option(help="Collateral, as DCAP tools write it in JSON. Software quotes need none."),
        ] = None,
        at: Annotated[
            str | None, typer.Option(help="The time to verify for: ISO 8601, or seconds. Now.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Say whether a quote is genuine under the root you name, and what it says.

        Ends with status 1, and the reason, where it is refused. Judges no enclave: compare MRENCLAVE yourself.
        """
        from strongroom.attestation.errors import VerificationError
        from strongroom.attestation.policy import UnsafeAnything
        from strongroom.attestation.verify import verify_quote

        moment = parse_time(at)
        quote = _read(file)
        named = _root(root)
        try:
            given = _collateral(collateral, named, quote, moment if at is None else parse_time(None))
            verified = verify_quote(quote, given, named, moment, UnsafeAnything())
        except VerificationError as error:
            if not as_json:
                raise
            print_json({"genuine": False, "reason": error.reason, "message": str(error)})
            raise typer.Exit(1) from None
        facts = verified.facts()
        if as_json:
            print_json({"genuine": True, **facts})
            return
        origin = "hardware" if named.is_intel else "SOFTWARE, no hardware"
        typer.echo(f"genuine under {named.name} ({origin}) at {facts['at']}")
        for name in ("mrenclave", "mrsigner", "product", "svn", "report_data", "fmspc", "tcb_status"):
            typer.echo(f"  {name:<12} {facts[name]}")
        for name in ("kind", "level", "microcode"):
            if facts[name] is not None:
                typer.echo(f"  {name:<12} {facts[name]}")
        if verified.advisory_ids:
            typer.echo(f"  {'advisories':<12} {', '.join(verified.advisory_ids)}")


def parse_time(text: str | None) -> datetime:
    """ISO 8601 (UTC where no zone is named) or seconds since 1970; now where there is none. Raises UsageError."""
    if text is None:
        return datetime.now(UTC)
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r} is not a time", "write 2026-01-31T12:00:00Z or seconds since 1970"
        ) from None


def _read(file: Path) -> bytes:
    from strongroom.attestation.quote import MAX_QUOTE_SIZE

    try:
        with file.open("rb") as opened:
            return opened.read(MAX_QUOTE_SIZE + 1)
    except OSError as error:
        raise StrongroomError(
            f"cannot read {file} ({error.strerror})",
            "name a quote: `strongroom quote DIR --out FILE` writes one",
        ) from error


def _root(name: str) -> Root:
    from strongroom import paths
    from strongroom.attestation.roots import INTEL, Root

    if name == "intel":
        return INTEL
    if name == "software":
        return Root.from_file(paths.home() / "pki" / "root.pem")
    return Root.from_file(Path(name))


def _collateral(given: Path | None, root: Root, quote: bytes, now: datetime) -> Collateral:
    """From the file, or issued ``now`` by this installation's PKI where the quote is of its making."""
    from strongroom import paths
    from strongroom.attestation.collateral import Collateral
    from strongroom.attestation.errors import UnnamedRoot
    from strongroom.attestation.quote import Quote
    from strongroom.isa.software_tcb import QE_USER_DATA
    from strongroom.owner.sources import FromSoftwarePki

    if given is not None:
        return Collateral.load(given)
    parsed = Quote.parse(quote)
    ours = parsed.header.user_data == QE_USER_DATA
    if not root.is_intel:
        return FromSoftwarePki(paths.home())(quote, now)
    if ours:
        raise UnnamedRoot(
            f"this quote is from a SOFTWARE platform, and the root named is {root.name!r}",
            "add --root software if that is the one you mean to believe",
        )
    raise UsageError("a quote of hardware needs its collateral", "add --collateral FILE (from a PCCS)")
