"""Outside: the hospital's host part. It moves files that it cannot read, and calls one function."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from strongroom import Enclave
from strongroom.errors import StrongroomError


def deliver(model: Path, project: Path) -> None:
    """Put the owner's encrypted model where the enclave's /model is on the host (enclave.toml)."""
    with tempfile.TemporaryDirectory(prefix=".model-", dir=project) as temporary:
        fresh, place = Path(temporary) / "new", project / "model.enc"
        shutil.copytree(model, fresh)
        for path in (fresh, *fresh.rglob("*")):  # ciphertext: the enclave's own user reads it
            path.chmod(0o755 if path.is_dir() else 0o644)
        if place.exists():
            os.rename(place, Path(temporary) / "old")
        os.rename(fresh, place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--enclave", type=Path, default=Path(__file__).parent, help="the project, built")
    parser.add_argument("--vm", default="clinic")
    parser.add_argument("--owner", required=True, metavar="URL", help="who holds the key")
    parser.add_argument("--model", type=Path, required=True, help="the owner's model, encrypted")
    parser.add_argument("records", type=Path, help="encrypted records")
    parser.add_argument("report", type=Path, help="where the encrypted report goes")
    given = parser.parse_args()
    try:
        deliver(given.model, given.enclave)
        with Enclave(given.enclave, vm=given.vm, arguments=[given.owner]) as box:
            print(
                f"hospital: level {box.facts['level']} · VM {box.facts['vm']} · MRENCLAVE {box.facts['mrenclave']}"
            )
            given.report.write_bytes(box.score(given.records.read_bytes()))
    except (StrongroomError, OSError) as error:
        print(f"hospital: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
