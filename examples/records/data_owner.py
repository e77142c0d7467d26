"""The data owner: encrypts records and model, says which enclave may have the keys, and checks the report.

`prepare` before, `python -m strongroom.owner serve FOLDER/policy.toml` while the enclave starts, `compare` after.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.image.measure import measure
from strongroom.owner.folders import encrypt_folder
from strongroom.owner.keys import load_key, new_key, record_key
from strongroom.owner.records import decrypt_file, encrypt_file

MODEL = Path(__file__).parent / "model"
sys.path.insert(0, str(MODEL))

import classifier  # noqa: E402 - the owner's own copy, in the open

RECORDS = Path(__file__).parent / "data" / "breast_cancer.csv"
KEY, MODEL_KEY = "records", "model"  # the names that score.py asks for
MOUNT = "/model"  # where the model stands inside: enclave.toml


def prepare(folder: Path, image: Path, root: str, levels: list[str]) -> None:
    """Make keys, encrypt records and model, write the policy: this measurement, under this root, at these levels."""
    folder.mkdir(mode=0o700, exist_ok=True)
    new_key(folder / "records.key")
    encrypt_file(record_key(folder / "records.key", KEY), RECORDS, folder / "records.enc")
    new_key(folder / "model.key")
    encrypt_folder(load_key(folder / "model.key"), MODEL, folder / "model.enc", MOUNT)
    mrenclave = measure(image).mrenclave.hex()
    accepted = ", ".join(f'"{level}"' for level in levels)
    rule = f'root = "{root}"\nmrenclave = ["{mrenclave}"]\nlevels = [{accepted}]\n'
    policy = "".join(f'[keys.{name}]\nfile = "{name}.key"\n{rule}' for name in (KEY, MODEL_KEY))
    (folder / "policy.toml").write_text(policy)
    print(mrenclave)


def compare(folder: Path, report: Path) -> None:
    """Decrypt the report; compare it with that of the same program, run here in the open. Raises StrongroomError."""
    decrypt_file(record_key(folder / "records.key", KEY), report, folder / "report.json")
    inside = (folder / "report.json").read_bytes()
    outside = classifier.report(RECORDS.read_bytes())
    if inside != outside:
        raise StrongroomError("the report from the enclave is not that of the same program in the open")
    print(inside.decode(), end="")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    first = verbs.add_parser("prepare")
    first.add_argument("folder", type=Path)
    first.add_argument(
        "--image", type=Path, required=True, help="the image that the owner has reviewed: enclave.sgxs"
    )
    first.add_argument(
        "--root", required=True, help='the root it believes: "software", "intel" or a PEM file'
    )
    first.add_argument("--level", action="append", required=True, help="a level it accepts; may be repeated")
    last = verbs.add_parser("compare")
    last.add_argument("folder", type=Path)
    last.add_argument("report", type=Path)
    given = parser.parse_args()
    try:
        if given.verb == "prepare":
            prepare(given.folder, given.image, given.root, given.level)
        else:
            compare(given.folder, given.report)
    except (StrongroomError, OSError) as error:
        print(f"data owner: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
