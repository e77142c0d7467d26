"""``python -m strongroom.owner``: make a key, encrypt and decrypt records, serve releases."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from strongroom import paths
from strongroom.attestation.verify import Verified
from strongroom.errors import StrongroomError
from strongroom.owner.keys import new_key, record_key
from strongroom.owner.records import decrypt_file, encrypt_file
from strongroom.owner.releaser import Releaser
from strongroom.owner.rules import Rule, load_rules
from strongroom.owner.server import OwnerServer
from strongroom.owner.sources import FromFile, FromSoftwarePki, Source

EXAMPLE = """example:
  python -m strongroom.owner new-key records.key
  python -m strongroom.owner encrypt records.key records patients.csv records.enc
  python -m strongroom.owner serve policy.toml --port 8700
  python -m strongroom.owner decrypt records.key records report.enc report.json"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m strongroom.owner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLE,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("new-key", help="make a key file")
    made.add_argument("file", type=Path, help="where it goes; one that is there is not replaced")
    for verb in ("encrypt", "decrypt"):
        one = verbs.add_parser(verb, help=f"{verb} a file of records")
        one.add_argument("key", type=Path, help="a file that new-key made")
        one.add_argument("name", help="the key's name, as the program asks for it")
        one.add_argument("source", type=Path, help=f"what to {verb}")
        one.add_argument("target", type=Path, help="where the result goes (mode 0600); it is replaced")
    serve = verbs.add_parser("serve", help="release keys to the enclaves that the policy file names")
    serve.add_argument("policy", type=Path, help="[keys.NAME] tables (docs/attestation.md)")
    serve.add_argument("--port", type=_port, default=0, help="0, which is the default, takes a free one")
    serve.add_argument("--collateral", type=Path, help="collateral file, for Intel's root")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write 0 to 65535")
    return int(text)


def _listen(releaser: Releaser, port: int) -> OwnerServer:
    """Raises StrongroomError where the port is not to be had."""
    try:
        return OwnerServer(releaser, port)
    except OSError as error:
        raise StrongroomError(
            f"cannot listen on port {port} ({error.strerror})",
            "choose another --port, or leave it out: any free one",
        ) from error


def make_releaser(policy: Path, home: Path, collateral: Path | None = None) -> Releaser:
    """A releaser for a policy file; software quotes get this installation's collateral. Raises StrongroomError."""
    rules = load_rules(policy, home / "pki" / "root.pem")
    given = FromFile(collateral) if collateral is not None else None

    def source(rule: Rule) -> Source:
        return given if given is not None else FromSoftwarePki(home)

    return Releaser(rules, source, lambda: datetime.now(UTC), _told)


def _told(name: str, verified: Verified) -> None:
    print(
        f"released {name} to {verified.report.mrenclave.hex()} (level {verified.level or 'hardware'})",
        file=sys.stderr,
        flush=True,
    )


def _run(arguments: argparse.Namespace) -> None:
    if arguments.verb == "new-key":
        new_key(arguments.file)
        print(f"made {arguments.file}: keep it to yourself, it opens the records")
    elif arguments.verb == "serve":
        releaser = make_releaser(arguments.policy, paths.home(), arguments.collateral)
        server = _listen(releaser, arguments.port)
        print(server.url, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()
    else:
        act = encrypt_file if arguments.verb == "encrypt" else decrypt_file
        act(record_key(arguments.key, arguments.name), arguments.source, arguments.target)
        print(f"wrote {arguments.target}: {arguments.target.stat().st_size:,} bytes, {arguments.verb}ed")


def main() -> int:
    """The exit status: 0, 1, or 2 for usage."""
    arguments = _parser().parse_args()
    try:
        _run(arguments)
    except (StrongroomError, OSError) as error:
        print(f"strongroom: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
