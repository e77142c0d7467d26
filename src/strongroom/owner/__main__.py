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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m strongroom.owner", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("new-key", help="make a key file")
    made.add_argument("file", type=Path)
    for verb in ("encrypt", "decrypt"):
        one = verbs.add_parser(verb, help=f"{verb} a file of records")
        one.add_argument("key", type=Path)
        one.add_argument("name", help="the key's name, as the program asks for it")
        one.add_argument("source", type=Path)
        one.add_argument("target", type=Path)
    serve = verbs.add_parser("serve", help="release keys to the enclaves that the policy file names")
    serve.add_argument("policy", type=Path)
    serve.add_argument("--port", type=int, default=0, help="0 takes a free one")
    serve.add_argument("--collateral", type=Path, help="collateral file, for Intel's root")
    return parser


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
    elif arguments.verb == "serve":
        releaser = make_releaser(arguments.policy, paths.home(), arguments.collateral)
        server = OwnerServer(releaser, arguments.port)
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
